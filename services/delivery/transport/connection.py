"""Connection: an open connection to an endpoint, which carries one request after another.

pool → dialling → [connection] → callback URL

Law 1: no call blocks: if the socket is not ready to read or write, the event loop resumes the work when the socket is.
Law 2: the keeper gets each exchange back exactly once: with its answer, or as stale if a kept connection broke before any byte of an
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

from services.delivery.transport.dialling import NOT_READY, reason
from services.delivery.transport.exchange import Exchange, Limits, failed
from services.delivery.transport.protocol import RESPONSE_BYTES_MAX, Answer, Outcome
from services.delivery.transport.response_parser import ResponseParser
from services.delivery.transport.tls_stream import TlsStream

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

    def answered(self, connection: "Connection", exchange: Exchange, answer: Answer) -> None:
        """Receive an exchange's answer; the connection is then idle or closed."""

    def stale(self, connection: "Connection", exchange: Exchange) -> None:
        """Take back an exchange: its kept connection, now closed, broke before any byte of an answer came."""

    def lost(self, connection: "Connection") -> None:
        """Note that an idle connection can no longer be used."""

    def fault(self, error: BaseException) -> None:
        """Receive an exception that is a bug in the transport."""


class Connection:
    """One connection; it serves one exchange at a time."""

    __slots__ = (
        *("_began", "_doubtful_until", "_early", "_keeper", "_limits", "_loop", "_number", "_parser", "_round_trip_s", "_served"),
        *("_socket", "_tls", "_unsent"),
        *("address", "born", "exchange", "idle_since", "is_closed", "origin", "owner", "tls_context"),
    )

    def __init__(
        self,
        keeper: Keeper,
        limits: Limits,
        loop: asyncio.AbstractEventLoop,
        connected: socket.socket | TlsStream,
        address: str,
        exchange: Exchange,
    ) -> None:
        """Take a socket connected to `address`; the pool opened it for `exchange`, and has yet to send that exchange."""
        self.origin = exchange.target.origin
        self.owner = exchange.request.owner
        """The owner of the exchange that opened the connection; the connection may serve other owners."""
        self.tls_context = exchange.tls_context
        self.address = address
        self.exchange: Exchange | None = None
        """The exchange under way; None while the connection is idle."""
        self.is_closed = False
        self.born = self.idle_since = self._began = loop.time()
        self._keeper = keeper
        self._limits = limits
        self._loop = loop
        self._socket = connected
        self._tls = connected if isinstance(connected, TlsStream) else None
        self._number = connected.fileno()
        self._parser = ResponseParser()
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
        except NOT_READY:
            # Only TLS's own messages came, such as a session ticket.
            return True
        except OSError:
            pass
        return False

    def send(self, exchange: Exchange, now: float) -> None:
        """Begin to send an exchange's request; the keeper is called later, never within this call."""
        self.exchange = exchange
        self._began = now
        self._parser.whole = exchange.request.whole
        data = exchange.request_bytes
        if self._round_trip_s or len(data) > _SMALL_BYTES_MAX:
            self._doubtful_until = monotonic() + self._round_trip_s if len(data) <= _SMALL_BYTES_MAX else math.inf
        try:
            sent = self._socket.send(data)
        except NOT_READY:
            sent = 0
        except OSError as error:
            self._unsent = memoryview(data)
            self._loop.call_soon(self._guarded, self._after_failed_send, exchange, error)
            return
        if sent < len(data):
            self._unsent = memoryview(data)[sent:]
            self._loop.add_writer(self._number, self._guarded, self._send_rest)

    def overdue(self, now: float) -> Answer | None:
        """Return the answer that ends the exchange if its time is over, else None."""
        exchange = self.exchange
        if exchange is None:
            return None
        if now >= exchange.deadline:
            return failed(Outcome.TIMEOUT, "no answer within the time limit")
        if exchange.request.timeout_s is None and not self._parser.begun and now >= self._began + self._limits.first_byte_timeout_s:
            return failed(Outcome.TIMEOUT, "no answer began within the time limit")
        return None

    def close(self) -> None:
        """Close the connection; an exchange under way gets no answer from it."""
        if self.is_closed:
            return
        self.is_closed = True
        self._stop_sending()
        self._loop.remove_reader(self._number)
        if self._tls is not None and self.exchange is None:
            # Send `close_notify`: an endpoint may take a connection that ends without it for a truncation attack.
            with contextlib.suppress(OSError, ValueError):
                self._tls.unwrap()
        self.exchange = None
        self._socket.close()

    def cut_off(self, answer: Answer) -> None:
        """Close the connection, and end the exchange under way with the given answer."""
        if self.exchange is not None:
            self._end(self.exchange, answer)

    def _end(self, exchange: Exchange, answer: Answer) -> None:
        self.close()
        self._keeper.answered(self, exchange, answer)

    # Sending

    def _send_rest(self) -> None:
        exchange, unsent = self.exchange, self._unsent
        if exchange is None or unsent is None:
            return
        try:
            sent = self._socket.send(unsent)
        except NOT_READY:
            return
        except OSError as error:
            self._after_failed_send(exchange, error)
            return
        if sent < len(unsent):
            self._unsent = unsent[sent:]
        else:
            self._stop_sending()

    def _after_failed_send(self, exchange: Exchange, error: OSError) -> None:
        """End the connection and its exchange after a failed send; first read, because an endpoint may answer before it closes."""
        if self.exchange is exchange:
            self._read()
        if self.exchange is exchange:
            self._broke(exchange, error)

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
        exchange, goes_on = self.exchange, True
        while goes_on:
            try:
                count = self._socket.recv_into(_BUFFER)
            except NOT_READY:
                return
            except OSError as error:
                self._broke(exchange, error)
                return
            if exchange is None or not count:
                self._broke(exchange, None)
                return
            try:
                complete = self._parser.feed(_BUFFER[:count])
            except ValueError:
                self._end(exchange, failed(Outcome.PROTOCOL, "the answer was not valid HTTP, or exceeded a limit"))
                return
            if self._unsent is not None or self._doubtful_until:
                self._check_early_answer()
            if complete:
                self._complete(exchange)
                return
            # The event loop does not see data that TLS has already read from the socket.
            goes_on = self._tls is not None and self._tls.pending() > 0

    def _complete(self, exchange: Exchange) -> None:
        parser = self._parser
        answer = parser.answer() if not self._early else self._answer()
        if self._tls is not None and self.tls_context is not None and not self._served:
            # TLS 1.3 sends its session tickets with the first answer.
            self.tls_context.remember(self.origin, self._tls.session)
        if not parser.keeps or self._early or (self._tls is not None and not self._tls.is_drained()):
            self.close()
        else:
            self._served = True
            self.exchange = None
        self._keeper.answered(self, exchange, answer)

    def _check_early_answer(self) -> None:
        """Note whether the endpoint sent a status before it had the whole request.

        Each packet that the endpoint sends acknowledges all that it has received. If part of the request is unsent, or is still
        unacknowledged when the status comes, then the endpoint answered too early.
        """
        if self._unsent is None and monotonic() >= self._doubtful_until:
            self._doubtful_until = 0.0
        elif self._parser.status:
            self._doubtful_until = 0.0
            if self._unsent is not None:
                self._early = True
            # If TLS has sent messages of its own, unacknowledged bytes prove nothing.
            elif _IS_LINUX and (self._tls is None or not self._tls.has_replied):
                # SIOCOUTQ of tcp(7), which has the same number as TIOCOUTQ.
                ioctl(self._number, termios.TIOCOUTQ, _COUNT)
                self._early = _COUNT != _NOTHING

    def _answer(self) -> Answer:
        answer = self._parser.answer()
        if self._early and answer.outcome is Outcome.DELIVERED:
            return failed(Outcome.PROTOCOL, "the server answered before it had received the whole request")
        return answer

    def _broke(self, exchange: Exchange | None, error: OSError | None) -> None:
        """Handle the end of the connection, or data that nobody requested."""
        if exchange is None:
            self._keeper.lost(self)
        elif error is None and self._parser.ends_here():
            self._end(exchange, self._answer())
        elif self._served and not self._parser.begun:
            self.close()
            self._keeper.stale(self, exchange)
        elif isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError):
            # An alert may come after the handshake: TLS 1.3 refuses a client's certificate this way.
            self._end(exchange, failed(Outcome.TLS, f"TLS failed: {reason(error)}"))
        else:
            self._end(exchange, failed(Outcome.RESET, "the connection broke before the answer was complete"))


def _round_trip_s(connected: socket.socket | TlsStream) -> float:
    """Return the round-trip time to the endpoint; 0 if it is too short to matter, or unknown."""
    if not _IS_LINUX:
        return 0.0
    (round_trip_us,) = struct.unpack_from("=I", connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES), _RTT_AT)
    return round_trip_us / 1e6 if round_trip_us / 1e6 > _NEAR_S else 0.0
