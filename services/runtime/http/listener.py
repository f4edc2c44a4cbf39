"""Listener: accepts HTTP connections within limits, and closes a connection if its client is too slow to send a request.

client → accept → [listener] → aiohttp's parser → handler
            └ connection_limits

Law 1: a connection counts as soon as it is accepted, so a connection in the middle of a TLS handshake counts too.
Law 2: the listener never holds more connections than its limits permit, and the limits are below the limit of open files.
Law 3: a connection gets a protocol and memory of its own only after its client has sent something.
Law 4: every connection of a client that stops sending ends: by the time limit for headers, or because it gives way.
"""

import asyncio
import contextlib
import errno
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import StreamReader, web
from prometheus_client import Counter

from services.runtime.authentication_throttle import network_of
from services.runtime.http.client_address import TrustedProxies
from services.runtime.http.connection_limits import Connection, ConnectionLimits, Connections
from services.runtime.logs import logger
from services.runtime.service_process import cannot_listen

HEAD_BYTES_MAX = 32 * 1024
"""How many bytes of a request's head a connection holds before the head is complete."""
# How much the system buffers of what a client sends before the process reads it, and so the most that one read returns.
_RECEIVE_BUFFER_BYTES = 64 * 1024
_BACKLOG = 1024
# How many connections are accepted before the event loop serves the open ones again.
_ACCEPTS_A_TURN = 16
# The errors that accept(2) reports while the process or the system is out of files or memory.
_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_EXHAUSTED_PAUSE_S = 0.1
_UNIX = "unix:"
_LINE_EVERY_S = 60.0

_closed = Counter(
    "hooktide_http_connections_limited_total", "HTTP connections that a limit closed: refused, or closed to make room for others.", ["how"]
)


class GuardedConnection(web.RequestHandler):
    """A connection that records whether it is the server's turn or the client's."""

    __slots__ = ("_body", "_connection", "_connections", "_gone", "_head_bytes", "_headers_s", "_late", "_wire")

    def __init__(self, server: web.Server, gate: "Gate", connection: Connection, **settings: Any) -> None:  # noqa: ANN401 - aiohttp's own
        """Take the counted connection, and aiohttp's settings for a `RequestHandler`."""
        super().__init__(server, keepalive_timeout=gate.limits.idle_s, **settings)
        self._connections = gate.connections
        self._headers_s = gate.limits.headers_s
        self._connection = connection
        self._wire: asyncio.Transport | None = None
        self._late: asyncio.TimerHandle | None = None
        self._body: StreamReader | None = None
        # How many bytes of the next request's incomplete head have arrived.
        self._head_bytes = 0
        self._gone = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._wire = self.transport
        self._expect_headers()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Forget the connection."""
        self._connections.closed(self._connection)
        self._stop_expecting()
        self._gone.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Receive what the client sent; a request's head must be complete within the time limit once it has begun."""
        requests = self._request_count
        is_between = not self._messages and (self._body is None or self._body.is_eof())
        super().data_received(data)
        if self._request_count != requests:
            self._head_bytes = 0
            self._stop_expecting()
            self._connections.serve(self._connection)
        elif data and is_between:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES_MAX:
                self.abort()
            elif not self._request_in_progress:
                self._expect_headers()

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """Answer 400 to bytes that are not HTTP. aiohttp would log a traceback for each, and with it what the client sent."""
        if status != web.HTTPBadRequest.status_code or request.writer.output_size > 0:
            return super().handle_error(request, status, exc, message)
        logger().info("request.malformed", status=status, fault=type(exc).__name__)
        response = web.Response(status=status, text="The request is not valid HTTP/1.1.\n")
        response.force_close()
        return response

    @property
    def peer(self) -> str:
        """The address of the other end, empty for the peer of a Unix socket."""
        return self._connection.peer

    def abort(self) -> None:
        """Close the connection at once, and drop what was not sent yet."""
        if self._wire is not None:
            self._wire.abort()

    def show_known(self) -> None:
        """Note that a request on this connection showed a valid API key."""
        self._connection.is_known = True

    @contextlib.contextmanager
    def clients_turn(self) -> Iterator[None]:
        """Note that it is the client's turn while the block runs, so that the connection may give way."""
        self._connections.await_client(self._connection)
        try:
            yield
        finally:
            self._connections.serve(self._connection)

    async def hold_back(self, delay_s: float) -> None:
        """Wait `delay_s` before an answer is sent, or until the client has gone."""
        with self.clients_turn(), contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay_s):
                await self._gone.wait()

    async def _handle_request(
        self,
        request: web.BaseRequest,
        start_time: float | None,
        request_handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
    ) -> tuple[web.StreamResponse, bool]:
        self._body = request.content
        self._connections.serve(self._connection)
        try:
            return await super()._handle_request(request, start_time, request_handler)
        finally:
            if not self._messages:
                self._connections.await_client(self._connection)
            if self._head_bytes:
                self._expect_headers()

    def _expect_headers(self) -> None:
        if self._late is None:
            self._late = self._loop.call_later(self._headers_s, self.abort)

    def _stop_expecting(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None


class Gate:
    """Decides on new connections; all connections of one listener share a gate."""

    def __init__(self, limits: ConnectionLimits, proxies: TrustedProxies | None = None) -> None:
        self.limits = limits
        self.proxies = proxies or TrustedProxies(())
        self.connections = Connections(limits)

    def change(self, limits: ConnectionLimits, proxies: TrustedProxies) -> None:
        """Use other limits from now on. Open connections keep their time limits."""
        self.limits, self.proxies = limits, proxies
        self.connections.change(limits)

    def network(self, peer: str) -> str | None:
        """Return the network that a peer's connections count against, None for a trusted proxy or the peer of a Unix socket."""
        return None if not peer or self.proxies.trusts(peer) else network_of(peer)


Connect = Callable[[Connection], GuardedConnection]


@contextlib.asynccontextmanager
async def accepting(connect: Connect, gate: Gate, listen: str, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """Accept connections on `listen` (``host:port`` or ``unix:path``); yields the address bound.

    `connect` makes the protocol of each connection. At the end, open connections stay open and belong to their server. Raises `StartError`.
    """
    try:
        sockets = await _bound(listen)
    except OSError as error:
        raise cannot_listen(listen, error) from error
    loop = asyncio.get_running_loop()
    acceptor = _Acceptor(connect, gate, tls)
    for each in sockets:
        loop.add_reader(each, acceptor.accept, each)
    try:
        yield listen if listen.startswith(_UNIX) else f"{listen.rpartition(':')[0]}:{sockets[0].getsockname()[1]}"
    finally:
        for each in sockets:
            loop.remove_reader(each)
            each.close()
        await acceptor.close()


@dataclass(slots=True, eq=False)
class _Arrival:
    """A connection between its acceptance and its handover to a protocol: silent at first, then opening."""

    accepted: socket.socket
    connection: Connection
    late: asyncio.TimerHandle | None = None
    """Set while the client is silent."""
    protocol: GuardedConnection | None = None
    """Set once the client has sent something."""
    opening: asyncio.Task[None] | None = None
    has_transport: bool = False
    """Whether the socket belongs to a transport, which then closes it."""


class _Acceptor:
    """Takes connections from listening sockets."""

    def __init__(self, connect: Connect, gate: Gate, tls: ssl.SSLContext | None) -> None:
        self._connect = connect
        self._gate = gate
        self._tls = tls
        self._loop = asyncio.get_running_loop()
        self._arriving: set[_Arrival] = set()
        self._next_line_s = 0.0

    async def close(self) -> None:
        """Close the connections that are not open yet."""
        opening = [arrival.opening for arrival in self._arriving if arrival.opening is not None]
        for arrival in tuple(self._arriving):
            self._close(arrival)
        await asyncio.gather(*opening, return_exceptions=True)

    def accept(self, listening: socket.socket) -> None:
        """Accept the connections that wait on a socket, at most `_ACCEPTS_A_TURN`."""
        for _ in range(_ACCEPTS_A_TURN):
            try:
                accepted, address = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                # Any other error belongs to a connection that failed before it was accepted (accept(2)).
                if error.errno in _EXHAUSTED:
                    # The limits should prevent this; another part of the process has used up the files.
                    logger().error("connections.accept_failed", error=error.strerror, connections=len(self._gate.connections))
                    self._pause(listening)
                return
            self._admit(accepted, address[0] if isinstance(address, tuple) else "")

    def _admit(self, accepted: socket.socket, peer: str) -> None:
        """Keep a connection until its client sends something, if the limits permit it."""
        network = self._gate.network(peer)
        if not self._gate.connections.admit(network):
            accepted.close()
            self._note("refused", network)
            return
        accepted.setblocking(False)  # noqa: FBT003 - the library's signature

        def give_way() -> None:
            self._close(arrival)
            self._note("gave_way", network)

        connection = Connection(network, give_way, peer)
        arrival = _Arrival(accepted, connection)
        self._gate.connections.opened(connection)
        self._arriving.add(arrival)
        # Often the first bytes, or the end of the connection, have already arrived.
        self._hear(arrival)

    def _listen_to(self, arrival: _Arrival) -> None:
        """Wait for a client's first byte. Until then its connection costs only a socket."""
        arrival.late = self._loop.call_later(self._gate.limits.headers_s, self._close, arrival)
        self._loop.add_reader(arrival.accepted, self._spoken, arrival)

    def _listen_no_more(self, arrival: _Arrival) -> None:
        if arrival.late is not None:
            arrival.late.cancel()
            arrival.late = None
            self._loop.remove_reader(arrival.accepted)

    def _spoken(self, arrival: _Arrival) -> None:
        self._listen_no_more(arrival)
        self._hear(arrival)

    def _hear(self, arrival: _Arrival) -> None:
        """Open the connection if its client has sent something; close it if the client has gone, or opens too many a second."""
        try:
            first = arrival.accepted.recv(1, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            self._listen_to(arrival)
            return
        except OSError:
            first = b""
        network = arrival.connection.network
        if not first or not self._gate.connections.may_speak(network, self._loop.time()):
            self._close(arrival)
            if first:
                self._note("refused", network)
            return
        arrival.protocol = self._connect(arrival.connection)
        # owned: `_close` cancels it
        arrival.opening = self._loop.create_task(self._open(arrival, arrival.protocol))
        arrival.opening.add_done_callback(lambda _done: self._arriving.discard(arrival))

    async def _open(self, arrival: _Arrival, protocol: GuardedConnection) -> None:
        """Hand a connection to its protocol, after the TLS handshake if the listener uses TLS."""
        arrival.has_transport = True
        handshake_s = None if self._tls is None else self._gate.limits.headers_s
        try:
            await self._loop.connect_accepted_socket(lambda: protocol, arrival.accepted, ssl=self._tls, ssl_handshake_timeout=handshake_s)
        except asyncio.CancelledError:
            self._gate.connections.closed(arrival.connection)
            raise
        except (OSError, ssl.SSLError):
            # The client has gone, or its TLS is not accepted here.
            self._gate.connections.closed(arrival.connection)
        except Exception:  # noqa: BLE001 - whatever one connection does, the listener goes on
            logger().exception("connection.failed")
            self._gate.connections.closed(arrival.connection)

    def _close(self, arrival: _Arrival) -> None:
        """Close a connection at once, in whatever phase it is."""
        self._gate.connections.closed(arrival.connection)
        self._listen_no_more(arrival)
        if arrival.opening is not None:
            arrival.opening.cancel()
        if not arrival.has_transport:
            arrival.accepted.close()
            self._arriving.discard(arrival)
        elif arrival.protocol is not None:
            arrival.protocol.abort()

    def _note(self, how: str, network: str | None) -> None:
        """Count a connection that the limits closed; log one at most every `_LINE_EVERY_S`, since there may be thousands."""
        _closed.labels(how).inc()
        if self._loop.time() >= self._next_line_s:
            self._next_line_s = self._loop.time() + _LINE_EVERY_S
            logger().warning("connections.limited", how=how, network=network, connections=len(self._gate.connections))

    def _pause(self, listening: socket.socket) -> None:
        self._loop.remove_reader(listening)

        def resume() -> None:
            if listening.fileno() >= 0:
                self._loop.add_reader(listening, self.accept, listening)

        self._loop.call_later(_EXHAUSTED_PAUSE_S, resume)


def _remove_stale(path: Path) -> None:
    """Remove the socket that an earlier process left behind; it would prevent binding."""
    if path.is_socket():
        path.unlink()


async def _bound(listen: str) -> list[socket.socket]:
    """Return listening sockets for every address of `listen`; raise OSError."""
    sockets: list[socket.socket] = []
    if listen.startswith(_UNIX):
        path = listen.removeprefix(_UNIX)
        _remove_stale(Path(path))
        targets: list[tuple[int, Any]] = [(socket.AF_UNIX, path)]
    else:
        host, _, port = listen.rpartition(":")
        infos = await asyncio.get_running_loop().getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        targets = [(family, address) for family, _, _, _, address in dict.fromkeys(infos)]
    try:
        for family, address in targets:
            made = socket.socket(family, socket.SOCK_STREAM)
            sockets.append(made)
            made.setblocking(False)  # noqa: FBT003 - the library's signature
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
            if family != socket.AF_UNIX:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            made.bind(address)
            made.listen(_BACKLOG)
    except OSError:
        for each in sockets:
            each.close()
        raise
    return sockets
