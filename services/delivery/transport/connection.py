"""Connection: an open connection to an endpoint, which carries one request after another.

pool → dialling → [connection] → callback URL

Law 1: no call blocks: if the socket is not ready to read or write, the event loop resumes the work when the socket is.
Law 2: the keeper gets each flight back exactly once: with its answer, or as stale if a kept connection broke before any byte of an
answer came.
Law 3: an answer that the endpoint sent before it had the whole request delivers nothing.
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
# Only Linux tells which bytes a peer has acknowledged.
_IS_LINUX = sys.platform == "linux"
# The offset of `tcpi_rtt` (in µs) in `struct tcp_info` of linux/tcp.h, and the size of the prefix that contains it.
_RTT_AT = 68
_TCP_INFO_BYTES = 72
# A request of this size leaves in one burst of packets (RFC 6928): after one round trip the endpoint has received or lost it.
_SMALL_BYTES_MAX = 8 * 1024
# A nearer endpoint acknowledges a request before this code can look.
_NEAR_S = 0.0005
# All connections share this read buffer: one event loop reads them one at a time.
_BUFFER = memoryview(bytearray(RESPONSE_BYTES_MAX))


class Keeper(Protocol):
    """The owner of connections."""

    def answered(self, connection: "Connection", flight: Flight, answer: Answer) -> None:
        """Receive a flight's answer; the connection is then idle or closed."""

    def stale(self, connection: "Connection", flight: Flight) -> None:
        """Take back a flight: its kept connection, now closed, broke before any byte of an answer came."""

    def lost(self, connection: "Connection") -> None:
        """Note that an idle connection can no longer be used."""

    def fault(self, error: BaseException) -> None:
        """Receive an exception that is a bug in the transport."""


class Connection:
    """One connection; it serves one flight at a time."""

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
        """Take a socket connected to `address`; the pool opened it for `flight`, and has yet to send that flight."""
        self.origin = flight.target.origin
        self.owner = flight.request.owner
        """The owner of the flight that opened the connection; the connection may serve other owners."""
        self.trust = flight.trust
        self.address = address
        self.flight: Flight | None = None
        """The flight under way; None while the connection is idle."""
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
        """An answer received before this time may have left the endpoint before the request arrived; 0 if there is nothing to check."""
        self._early = False
        """Whether the endpoint answered before it had the whole request."""
        self._unsent: memoryview | None = None
        loop.add_reader(self._number, self._is_readable)
        if self._tls is not None and self._tls.pending():
            # Data arrived together with the end of the handshake.
            loop.call_soon(self._is_readable)

    def is_quiet(self) -> bool:
        """Return whether nothing came over a connection without a request; if something came, the caller must close the connection."""
        ioctl(self._number, termios.FIONREAD, _COUNT)
        # Check TLS's buffer only before the first answer: after each answer, `_complete` has checked it.
        if _COUNT == _NOTHING and (self._served or self._tls is None or not self._tls.pending()):
            return True
        if self._tls is None:
            return False
        try:
            self._socket.recv_into(_BUFFER)
        except LATER:
            # Only TLS's own messages came, such as a session ticket.
            return True
        except OSError:
            pass
        return False

    def send(self, flight: Flight, now: float) -> None:
        """Begin to send a flight's request; the keeper is called later, never within this call."""
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
        """Return the answer that ends the flight if its time is over, else None."""
        flight = self.flight
        if flight is None:
            return None
        if now >= flight.deadline:
            return failed(Outcome.TIMEOUT, "no answer within the time limit")
        if flight.request.timeout_s is None and not self._reading.begun and now >= self._began + self._limits.first_byte_timeout_s:
            return failed(Outcome.TIMEOUT, "no answer began within the time limit")
        return None

    def close(self) -> None:
        """Close the connection; a flight under way gets no answer from it."""
        if self.is_closed:
            return
        self.is_closed = True
        self._stop_sending()
        self._loop.remove_reader(self._number)
        if self._tls is not None and self.flight is None:
            # Send `close_notify`: an endpoint may take a connection that ends without it for a truncation attack.
            with contextlib.suppress(OSError, ValueError):
                self._tls.unwrap()
        self.flight = None
        self._socket.close()

    def cut_off(self, answer: Answer) -> None:
        """Close the connection, and end the flight under way with the given answer."""
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
        """End the connection and its flight after a failed send; first read, because an endpoint may answer before it closes."""
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
        except Exception as error:  # noqa: BLE001 - passed on: after a bug in the transport no guarantee holds
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
            # The event loop does not see data that TLS has already read from the socket.
            goes_on = self._tls is not None and self._tls.pending() > 0

    def _complete(self, flight: Flight) -> None:
        reading = self._reading
        answer = reading.answer() if not self._early else self._answer()
        if self._tls is not None and self.trust is not None and not self._served:
            # TLS 1.3 sends its session tickets with the first answer.
            self.trust.remember(self.origin, self._tls.session)
        if not reading.keeps or self._early or (self._tls is not None and not self._tls.is_drained()):
            self.close()
        else:
            self._served = True
            self.flight = None
        self._keeper.answered(self, flight, answer)

    def _look_for_haste(self) -> None:
        """Note whether the endpoint sent a status before it had the whole request.

        Each packet that the endpoint sends acknowledges all that it has received. If part of the request is unsent, or is still
        unacknowledged when the status comes, then the endpoint answered too early.
        """
        if self._unsent is None and monotonic() >= self._doubtful_until:
            self._doubtful_until = 0.0
        elif self._reading.status:
            self._doubtful_until = 0.0
            if self._unsent is not None:
                self._early = True
            # If TLS has sent messages of its own, unacknowledged bytes prove nothing.
            elif _IS_LINUX and (self._tls is None or not self._tls.has_replied):
                # SIOCOUTQ of tcp(7), which has the same number as TIOCOUTQ.
                ioctl(self._number, termios.TIOCOUTQ, _COUNT)
                self._early = _COUNT != _NOTHING

    def _answer(self) -> Answer:
        answer = self._reading.answer()
        if self._early and answer.outcome is Outcome.DELIVERED:
            return failed(Outcome.PROTOCOL, "the endpoint answered before it had the whole request")
        return answer

    def _broke(self, flight: Flight | None, error: OSError | None) -> None:
        """Handle the end of the connection, or data that nobody requested."""
        if flight is None:
            self._keeper.lost(self)
        elif error is None and self._reading.ends_here():
            self._end(flight, self._answer())
        elif self._served and not self._reading.begun:
            self.close()
            self._keeper.stale(self, flight)
        elif isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError):
            # An alert may come after the handshake: TLS 1.3 refuses a client's certificate this way.
            self._end(flight, failed(Outcome.TLS, f"TLS failed: {reason(error)}"))
        else:
            self._end(flight, failed(Outcome.RESET, "the connection broke before the answer was complete"))


def _round_trip_s(connected: socket.socket | Secured) -> float:
    """Return the round-trip time to the endpoint; 0 if it is too short to matter, or unknown."""
    if not _IS_LINUX:
        return 0.0
    (round_trip_us,) = struct.unpack_from("=I", connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES), _RTT_AT)
    return round_trip_us / 1e6 if round_trip_us / 1e6 > _NEAR_S else 0.0
