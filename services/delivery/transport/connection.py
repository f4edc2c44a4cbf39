"""Connection: one that stands, and the requests that leave over it one after another.

pool → dialling → [connection] → callback URL

Law 1: nothing waits: what a socket does not take or give at once goes on when the event loop says that it does.
Law 2: a flight that was put in comes out once: with its answer, or because a kept connection broke before anything of one came.
Law 3: an answer is to a request that the endpoint has: one that came before it has delivered nothing.
"""

import asyncio
import contextlib
import math
import socket
import ssl
import struct
import sys
import termios
from collections.abc import Callable
from fcntl import ioctl
from time import monotonic
from typing import Protocol

from services.delivery.transport.dialling import LATER, reason
from services.delivery.transport.exchange import Flight, Limits, failed
from services.delivery.transport.protocol import RESPONSE_BYTES_MAX, Answer, Outcome
from services.delivery.transport.response_parser import Reading
from services.delivery.transport.tls_stream import Secured

_COUNT = bytearray(4)
_NOTHING = bytes(4)
# Only there it is known what a peer has acknowledged.
_IS_LINUX = sys.platform == "linux"
# Where `tcpi_rtt` stands in `struct tcp_info` of linux/tcp.h, in µs; and as much of that as holds it.
_RTT_AT = 68
_TCP_INFO_BYTES = 72
# So much leaves at once (RFC 6928): after a round trip, the endpoint has it or has lost it.
_SMALL_BYTES_MAX = 8 * 1024
# What is nearer acknowledges a request before anybody could look.
_NEAR_S = 0.0005
# All connections read into the same piece of memory: they are read one at a time, on one event loop.
_BUFFER = memoryview(bytearray(RESPONSE_BYTES_MAX))


class Keeper(Protocol):
    """Who keeps connections."""

    def answered(self, connection: "Connection", flight: Flight, answer: Answer) -> None:
        """Take a flight's answer; the connection is idle, or closed."""

    def stale(self, connection: "Connection", flight: Flight) -> None:
        """Take back a flight under which a kept connection broke, before anything of an answer had come; it is closed."""

    def lost(self, connection: "Connection") -> None:
        """Take note that an idle connection is of no use any more."""

    def fault(self, error: BaseException) -> None:
        """Take a fault of our own."""


class Connection:
    """One connection, which serves one flight at a time."""

    __slots__ = (
        *("_began", "_doubtful_until", "_early", "_keeper", "_limits", "_loop", "_number", "_reading", "_round_trip_s", "_served"),
        *("_socket", "_tls", "_unsent"),
        *("address", "born", "flight", "idle_since", "is_closed", "origin", "owner", "trust"),
    )

    def __init__(
        self,
        keeper: Keeper,
        limits: Limits,
        loop: asyncio.AbstractEventLoop,
        connected: socket.socket | Secured,
        address: str,
        flight: Flight,
    ) -> None:
        """Take a socket that stands, to an address; `flight` is the one for which it was opened, and has yet to be sent."""
        self.origin = flight.target.origin
        self.owner = flight.request.owner
        """For whom it was opened; it may serve others."""
        self.trust = flight.trust
        self.address = address
        self.flight: Flight | None = None
        """What is under way; None while it is idle."""
        self.is_closed = False
        self.born = self.idle_since = self._began = loop.time()
        self._keeper = keeper
        self._limits = limits
        self._loop = loop
        self._socket = connected
        self._tls = connected if isinstance(connected, Secured) else None
        self._number = connected.fileno()
        self._reading = Reading()
        self._served = False
        self._round_trip_s = _round_trip_s(connected)
        self._doubtful_until = 0.0
        """Until when an answer may have been sent before the request came; 0 where that is not looked at, or known."""
        self._early = False
        """Whether an answer came before the request had left whole."""
        self._unsent: memoryview | None = None
        loop.add_reader(self._number, self._is_readable)
        if self._tls is not None and self._tls.pending():
            # It came with the end of the handshake.
            loop.call_soon(self._is_readable)

    def is_quiet(self) -> bool:
        """Return whether a connection without a request has brought nothing; else it must be closed."""
        ioctl(self._number, termios.FIONREAD, _COUNT)
        # What TLS has unpacked is looked for where no answer was read to its end.
        if _COUNT == _NOTHING and (self._served or self._tls is None or not self._tls.pending()):
            return True
        if self._tls is None:
            return False
        try:
            self._socket.recv_into(_BUFFER)
        except LATER:
            # It was of TLS itself, as a session ticket is.
            return True
        except OSError:
            pass
        return False

    def send(self, flight: Flight, now: float) -> None:
        """Send a flight's request; whatever comes of it comes later."""
        self.flight = flight
        self._began = now
        self._reading.whole = flight.request.whole
        wire = flight.wire
        if self._round_trip_s or len(wire) > _SMALL_BYTES_MAX:
            self._doubtful_until = monotonic() + self._round_trip_s if len(wire) <= _SMALL_BYTES_MAX else math.inf
        try:
            sent = self._socket.send(wire)
        except LATER:
            sent = 0
        except OSError as error:
            self._unsent = memoryview(wire)
            self._loop.call_soon(self._guarded, self._after_failed_send, flight, error)
            return
        if sent < len(wire):
            self._unsent = memoryview(wire)[sent:]
            self._loop.add_writer(self._number, self._guarded, self._send_rest)

    def overdue(self, now: float) -> Answer | None:
        """Return how the flight ends if its time is over, else None."""
        flight = self.flight
        if flight is None:
            return None
        if now >= flight.deadline:
            return failed(Outcome.TIMEOUT, "no answer within the time limit")
        if flight.request.timeout_s is None and not self._reading.begun and now >= self._began + self._limits.first_byte_timeout_s:
            return failed(Outcome.TIMEOUT, "no answer began within the time limit")
        return None

    def close(self) -> None:
        """Close it; what is under way is answered by nobody then."""
        if self.is_closed:
            return
        self.is_closed = True
        self._stop_sending()
        self._loop.remove_reader(self._number)
        if self._tls is not None and self.flight is None:
            # Politely: an endpoint may take it for an attack where the connection just ends.
            with contextlib.suppress(OSError, ValueError):
                self._tls.unwrap()
        self.flight = None
        self._socket.close()

    def cut_off(self, answer: Answer) -> None:
        """Close it, and end what is under way with an answer of our own."""
        if self.flight is not None:
            self._end(self.flight, answer)

    def _end(self, flight: Flight, answer: Answer) -> None:
        self.close()
        self._keeper.answered(self, flight, answer)

    # Sending

    def _send_rest(self) -> None:
        flight, unsent = self.flight, self._unsent
        if flight is None or unsent is None:
            return
        try:
            sent = self._socket.send(unsent)
        except LATER:
            return
        except OSError as error:
            self._after_failed_send(flight, error)
            return
        if sent < len(unsent):
            self._unsent = unsent[sent:]
        else:
            self._stop_sending()

    def _after_failed_send(self, flight: Flight, error: OSError) -> None:
        """End a flight that could not be sent whole, and the connection; an endpoint may have answered before it closed."""
        if self.flight is flight:
            self._read()
        if self.flight is flight:
            self._broke(flight, error)

    def _stop_sending(self) -> None:
        if self._unsent is not None:
            self._unsent = None
            self._loop.remove_writer(self._number)

    # Receiving

    def _is_readable(self) -> None:
        try:
            if not self.is_closed:
                self._read()
        except Exception as error:  # noqa: BLE001 - handed on: with a fault of our own nothing can be promised any more
            self._keeper.fault(error)

    def _guarded(self, act: Callable[..., None], *arguments: object) -> None:
        try:
            act(*arguments)
        except Exception as error:  # noqa: BLE001 - as above
            self._keeper.fault(error)

    def _read(self) -> None:
        flight, goes_on = self.flight, True
        while goes_on:
            try:
                count = self._socket.recv_into(_BUFFER)
            except LATER:
                return
            except OSError as error:
                self._broke(flight, error)
                return
            if flight is None or not count:
                self._broke(flight, None)
                return
            try:
                complete = self._reading.feed(_BUFFER[:count])
            except ValueError:
                self._end(flight, failed(Outcome.PROTOCOL, "the answer was not valid HTTP, or beyond its limits"))
                return
            if self._unsent is not None or self._doubtful_until:
                self._look_for_haste()
            if complete:
                self._complete(flight)
                return
            # What TLS has unpacked already, the event loop does not see.
            goes_on = self._tls is not None and self._tls.pending() > 0

    def _complete(self, flight: Flight) -> None:
        reading = self._reading
        answer = reading.answer() if not self._early else self._answer()
        if self._tls is not None and self.trust is not None and not self._served:
            # The tickets of TLS 1.3 come with the first answer.
            self.trust.remember(self.origin, self._tls.session)
        if not reading.keeps or self._early or (self._tls is not None and not self._tls.is_drained()):
            self.close()
        else:
            self._served = True
            self.flight = None
        self._keeper.answered(self, flight, answer)

    def _look_for_haste(self) -> None:
        """Note whether an answer has a status before the endpoint has the request: what it sends afterwards acknowledges all of that."""
        if self._unsent is None and monotonic() >= self._doubtful_until:
            self._doubtful_until = 0.0
        elif self._reading.status:
            self._doubtful_until = 0.0
            if self._unsent is not None:
                self._early = True
            # What TLS has sent by itself since then need not be acknowledged.
            elif _IS_LINUX and (self._tls is None or not self._tls.has_replied):
                # SIOCOUTQ of tcp(7), which has the number of TIOCOUTQ.
                ioctl(self._number, termios.TIOCOUTQ, _COUNT)
                self._early = _COUNT != _NOTHING

    def _answer(self) -> Answer:
        answer = self._reading.answer()
        if self._early and answer.outcome is Outcome.DELIVERED:
            return failed(Outcome.PROTOCOL, "the endpoint answered before it had the whole request")
        return answer

    def _broke(self, flight: Flight | None, error: OSError | None) -> None:
        """Take the end of the connection, or what comes unasked."""
        if flight is None:
            self._keeper.lost(self)
        elif error is None and self._reading.ends_here():
            self._end(flight, self._answer())
        elif self._served and not self._reading.begun:
            self.close()
            self._keeper.stale(self, flight)
        elif isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError):
            # An alert may come after the handshake, as a refusal of the client's certificate does.
            self._end(flight, failed(Outcome.TLS, f"TLS failed: {reason(error)}"))
        else:
            self._end(flight, failed(Outcome.RESET, "the connection broke before the answer was complete"))


def _round_trip_s(connected: socket.socket | Secured) -> float:
    """Return how long a request takes to the endpoint and its acknowledgement back; 0 if that is too short to matter, or not known."""
    if not _IS_LINUX:
        return 0.0
    (round_trip_us,) = struct.unpack_from("=I", connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES), _RTT_AT)
    return round_trip_us / 1e6 if round_trip_us / 1e6 > _NEAR_S else 0.0
