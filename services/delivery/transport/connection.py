"""Connection: one that stands, and the requests that leave over it one after another.

pool → dialling → [connection] → callback URL

Law 1: nothing waits: what a socket does not take or give at once goes on when the event loop says that it does.
Law 2: a flight that was put in comes out once: with its answer, or because a kept connection broke before anything of one came.
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from typing import Protocol

from services.delivery.model import Outcome
from services.delivery.transport.dialling import LATER, reason
from services.delivery.transport.flight import Flight, Limits, failed
from services.delivery.transport.protocol import RESPONSE_BYTES_MAX, Answer
from services.delivery.transport.reading import Reading
from services.delivery.transport.secured import Secured

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
        *("_began", "_keeper", "_limits", "_loop", "_number", "_reading", "_served", "_socket", "_tls", "_unsent"),
        *("address", "born", "flight", "idle_since", "is_closed", "origin", "trust"),
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
        self._unsent: memoryview | None = None
        loop.add_reader(self._number, self._is_readable)
        if self._tls is not None and self._tls.pending():
            # It came with the end of the handshake.
            loop.call_soon(self._is_readable)

    def send(self, flight: Flight, now: float) -> None:
        """Send a flight's request; whatever comes of it comes later."""
        self.flight = flight
        self._began = now
        self._reading.whole = flight.request.whole
        wire = flight.wire
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
            if complete:
                self._complete(flight)
                return
            # What TLS has unpacked already, the event loop does not see.
            goes_on = self._tls is not None and self._tls.pending() > 0

    def _complete(self, flight: Flight) -> None:
        reading = self._reading
        answer = reading.answer()
        if self._tls is not None and self.trust is not None and not self._served:
            # The tickets of TLS 1.3 come with the first answer.
            self.trust.remember(self.origin, self._tls.session)
        if not reading.keeps or self._unsent is not None or (self._tls is not None and not self._tls.is_drained()):
            self.close()
        else:
            self._served = True
            self.flight = None
        self._keeper.answered(self, flight, answer)

    def _broke(self, flight: Flight | None, error: OSError | None) -> None:
        """Take the end of the connection, or what comes unasked."""
        if flight is None:
            self._keeper.lost(self)
        elif error is None and self._reading.ends_here():
            self._end(flight, self._reading.answer())
        elif self._served and not self._reading.begun:
            self.close()
            self._keeper.stale(self, flight)
        elif isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError):
            # An alert may come after the handshake, as a refusal of the client's certificate does.
            self._end(flight, failed(Outcome.TLS, f"TLS failed: {reason(error)}"))
        else:
            self._end(flight, failed(Outcome.RESET, "the connection broke before the answer was complete"))
