"""Dialling: opens a connection to the endpoint, directly or through the operator's proxy, with TLS if the URL is https.

pool → [dialling] → connection → callback URL

Law 1: only this file opens sockets, and only to an address that the egress policy allows at that moment, or to the operator's proxy.
Law 2: no call blocks: if the socket is not ready to read or write, the event loop resumes the work when the socket is.
Law 3: the keeper hears of each dialling exactly once: it gets a connected socket, or an answer that says why dialling failed. After
`close` it hears nothing.
"""

import asyncio
import enum
import socket
import ssl
from collections.abc import Callable
from typing import Protocol

from services.delivery.transport.exchange import DialPolicy, Exchange, Limits, failed
from services.delivery.transport.protocol import Answer, Outcome
from services.delivery.transport.response_parser import HEAD_BYTES_MAX, TunnelResponseParser
from services.delivery.transport.tls_stream import TlsStream

NOT_READY = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
"""A socket raises these when it has nothing to read, or no room to write, at present."""
_REASON_CHARS_MAX = 200


class Keeper(Protocol):
    """The owner of diallings."""

    def connected(self, dialling: "Dialling", connected: socket.socket | TlsStream) -> None:
        """Receive the socket over which the exchange's request can be sent."""

    def failed(self, dialling: "Dialling", answer: Answer) -> None:
        """Receive the answer that says why there is no connection."""

    def fault(self, error: BaseException) -> None:
        """Receive an exception that is a bug in the transport."""


class _Phase(enum.Enum):
    CONNECTING = enum.auto()
    TUNNELLING = enum.auto()
    TLS_HANDSHAKE = enum.auto()
    OVER = enum.auto()


class Dialling:
    """One attempt to connect for an exchange."""

    __slots__ = (
        *(
            "_connected_by",
            "_keeper",
            "_left",
            "_loop",
            "_number",
            "_phase",
            "_parser",
            "_tls_stream",
            "_socket",
            "_watches_writable",
            "_dial_policy",
        ),
        *("address", "exchange"),
    )

    def __init__(
        self, keeper: Keeper, dial_policy: DialPolicy, limits: Limits, loop: asyncio.AbstractEventLoop, exchange: Exchange
    ) -> None:
        """Schedule the dialling for the next iteration of the event loop."""
        self.exchange = exchange
        self.address = exchange.addresses[exchange.tried]
        """The endpoint's address, also behind a proxy."""
        self._keeper = keeper
        self._dial_policy = dial_policy
        self._loop = loop
        self._phase = _Phase.CONNECTING
        self._parser = TunnelResponseParser()
        self._left = [self.address] if dial_policy.tunnel is None else list(dial_policy.tunnel.addresses)
        self._socket: socket.socket
        self._tls_stream: TlsStream
        self._number = -1
        self._watches_writable = False
        if not exchange.tried:
            exchange.connect_by = loop.time() + limits.connect_timeout_s
        self._connected_by = exchange.connect_by
        """The deadline to connect to this address. An address that answers may use the other addresses' time for its handshake."""
        loop.call_soon(self._guarded, self._dial)

    def overdue(self, now: float) -> Answer | None:
        """Return the answer that ends the dialling if its time is over, else None."""
        connect_by = self._connected_by if self._phase is _Phase.CONNECTING else self.exchange.connect_by
        if now < min(connect_by, self.exchange.deadline):
            return None
        if self._phase is _Phase.TLS_HANDSHAKE:
            return failed(Outcome.TLS, "TLS failed: the handshake took too long")
        return failed(Outcome.CONNECT, "no connection to the server within the time limit")

    def close(self) -> None:
        """Give up without a call to the keeper."""
        self._phase = _Phase.OVER
        self._close_socket()

    def cut_off(self, answer: Answer) -> None:
        """Give up, and hand the keeper the answer that says why."""
        self.close()
        self._keeper.failed(self, answer)

    def _dial(self) -> None:
        if self._phase is _Phase.OVER:
            return
        if not self._left:
            self.cut_off(failed(Outcome.CONNECT, "no connection to the server could be made"))
            return
        address, tunnel = self._left.pop(0), self._dial_policy.tunnel
        # With a proxy there is nothing to judge here: `resolver` has judged the sink's address, and the proxy is the operator's own.
        why = self._dial_policy.why_not(address) if tunnel is None else None
        if why is not None:
            self.cut_off(failed(Outcome.BLOCKED, why))
            return
        now = self._loop.time()
        self._connected_by = now + (self.exchange.connect_by - now) / (self.exchange.addresses_left + len(self._left))
        try:
            # This also fails if the process has reached its limit of open files.
            self._socket = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
            self._number = self._socket.fileno()
            self._socket.setblocking(False)  # noqa: FBT003 - the standard library's signature
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket.connect((address, self.exchange.target.port if tunnel is None else tunnel.port))
        except BlockingIOError:
            self._watch_writable()
        except OSError:
            self._dial_another()
        else:
            self._connected()

    def _dial_another(self) -> None:
        self._close_socket()
        self._dial()

    def _connected(self) -> None:
        self._unwatch_writable()
        if self._dial_policy.tunnel is None:
            self._begin_tls()
            return
        self._phase = _Phase.TUNNELLING
        there = f"[{self.address}]" if ":" in self.address else self.address
        there = f"{there}:{self.exchange.target.port}"
        shown = f"Proxy-Authorization: {self._dial_policy.tunnel.authorization}\r\n" if self._dial_policy.tunnel.authorization else ""
        try:
            # A new socket takes such a short request whole.
            self._socket.send(f"CONNECT {there} HTTP/1.1\r\nHost: {there}\r\n{shown}\r\n".encode())
        except OSError:
            self._dial_another()
        else:
            self._loop.add_reader(self._number, self._guarded, self._read_tunnel)

    def _read_tunnel(self) -> None:
        try:
            data = self._socket.recv(HEAD_BYTES_MAX)
            opened = bool(data) and self._parser.feed(memoryview(data))
        except NOT_READY:
            return
        except (OSError, ValueError):
            data, opened = b"", False
        if opened and self._parser.opened:
            self._loop.remove_reader(self._number)
            self._begin_tls()
        elif opened or not data:
            self.cut_off(failed(Outcome.CONNECT, "the operator's proxy refused to connect to the server"))

    def _begin_tls(self) -> None:
        exchange = self.exchange
        if exchange.tls_context is None:
            self._finish(self._socket)
            return
        self._phase = _Phase.TLS_HANDSHAKE
        name = exchange.target.name or exchange.target.addresses[0]
        try:
            self._tls_stream = TlsStream(
                self._socket, exchange.tls_context.context, name, exchange.tls_context.session(exchange.target.origin)
            )
        except OSError as error:
            self.cut_off(failed(Outcome.TLS, f"TLS failed: {reason(error)}"))
            return
        self._loop.add_reader(self._number, self._guarded, self._do_handshake)
        self._do_handshake()

    def _do_handshake(self) -> None:
        try:
            self._tls_stream.do_handshake()
        except ssl.SSLWantReadError:
            self._unwatch_writable()
        except ssl.SSLWantWriteError:
            self._watch_writable()
        except OSError as error:
            self.cut_off(failed(Outcome.TLS, f"TLS failed: {reason(error)}"))
        else:
            self._unwatch_writable()
            self._loop.remove_reader(self._number)
            self._finish(self._tls_stream)

    def _finish(self, connected: socket.socket | TlsStream) -> None:
        self._phase = _Phase.OVER
        self._keeper.connected(self, connected)

    def _is_writable(self) -> None:
        if self._phase is _Phase.TLS_HANDSHAKE:
            self._do_handshake()
        elif self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._dial_another()
        else:
            self._connected()

    def _guarded(self, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception as error:  # noqa: BLE001 - passed on: after a bug in the transport no guarantee holds
            self._keeper.fault(error)

    def _watch_writable(self) -> None:
        if not self._watches_writable:
            self._watches_writable = True
            self._loop.add_writer(self._number, self._guarded, self._is_writable)

    def _unwatch_writable(self) -> None:
        if self._watches_writable:
            self._watches_writable = False
            self._loop.remove_writer(self._number)

    def _close_socket(self) -> None:
        if self._number >= 0:
            self._unwatch_writable()
            self._loop.remove_reader(self._number)
            self._socket.close()
            self._number = -1


def reason(error: OSError) -> str:
    """Return OpenSSL's reason for an error, without the names of its functions."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return str(error.verify_message)[:_REASON_CHARS_MAX]
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.replace("_", " ").lower()[:_REASON_CHARS_MAX]
    return "the connection broke during the handshake"
