"""Hostile receivers: a server on this machine that speaks raw TCP (or TLS), and the ways in which endpoints misbehave."""

import asyncio
import contextlib
import gzip
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


@dataclass(slots=True, eq=False)
class Connection:
    """One connection, seen from the server."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    server: "HostileServer"

    async def request(self) -> bytes | None:
        """Read one whole request and return it; None if the client has closed."""
        try:
            head = await self.reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        at = head.lower().find(b"content-length:")
        size = int(head[at + 15 : head.index(b"\r\n", at)]) if at >= 0 else 0
        whole = head + await self.reader.readexactly(size)
        self.server.requests.append(whole)
        return whole

    async def send(self, data: bytes) -> None:
        """Write bytes."""
        self.writer.write(data)
        await self.writer.drain()

    def reset(self) -> None:
        """Reset the connection (RST)."""
        raw: socket.socket = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Behaviour = Callable[[Connection], Awaitable[None]]


@dataclass(slots=True)
class HostileServer:
    """What a server has received."""

    host: str = ""
    port: int = 0
    scheme: str = "http"
    connections: int = 0
    requests: list[bytes] = field(default_factory=list)

    @property
    def url(self) -> str:
        """The server's URL."""
        return f"{self.scheme}://{self.host}:{self.port}/hook"


@contextlib.asynccontextmanager
async def hostile(behaviour: Behaviour, *, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> AsyncIterator[HostileServer]:
    """Run a server that treats every connection alike."""
    known = HostileServer(host, scheme="http" if tls is None else "https")
    tasks: set[asyncio.Task[None]] = set()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        known.connections += 1
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
                await behaviour(Connection(reader, writer, known))
        except asyncio.CancelledError:
            pass  # the test is over
        finally:
            tasks.discard(task)
            writer.transport.abort()

    server = await asyncio.start_server(take, host, 0, ssl=tls, limit=1 << 20, backlog=1024)
    known.port = server.sockets[0].getsockname()[1]
    try:
        yield known
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


@contextlib.asynccontextmanager
async def black_hole(host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[str]:
    """Listen with a full queue and accept nothing: a connection is neither made nor refused. Yield the URL."""
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.socket())
        listening.bind((host, port))
        listening.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)  # noqa: FBT003 - the standard library's signature
            waiting.connect_ex(listening.getsockname())
        yield f"http://{host}:{listening.getsockname()[1]}/hook"


def answering(answer: bytes) -> Behaviour:
    """Answer every request alike, on keep-alive connections."""

    async def behave(connection: Connection) -> None:
        while await connection.request() is not None:
            await connection.send(answer)

    return behave


def answering_once(answer: bytes) -> Behaviour:
    """Answer one request, then close."""

    async def behave(connection: Connection) -> None:
        await connection.request()
        await connection.send(answer)
        connection.writer.close()
        await connection.writer.wait_closed()

    return behave


def status(number: int, *headers: str, body: str = "") -> bytes:
    """Return an answer."""
    lines = [f"HTTP/1.1 {number} Said", *headers, f"content-length: {len(body)}"]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


async def silent(connection: Connection) -> None:
    """Take the request and never answer."""
    await connection.request()
    await asyncio.Event().wait()


def dripping(interval_s: float, start: bytes = b"") -> Behaviour:
    """Answer byte by byte, for ever."""

    async def behave(connection: Connection) -> None:
        await connection.request()
        await connection.send(start)
        while True:
            await connection.send(b"x")
            await asyncio.sleep(interval_s)

    return behave


def endless(start: bytes, piece: bytes) -> Behaviour:
    """Answer without end, as fast as possible."""

    async def behave(connection: Connection) -> None:
        await connection.request()
        await connection.send(start)
        while True:
            await connection.send(piece)

    return behave


async def resetting(connection: Connection) -> None:
    """Take the request and reset the connection."""
    await connection.request()
    connection.reset()


async def closing(connection: Connection) -> None:
    """Take the request and close the connection cleanly, without an answer."""
    await connection.request()
    connection.writer.close()


def bomb(header: str) -> bytes:
    """Return an answer of 20 KB that unpacks to 20 MB."""
    packed = gzip.compress(b"0" * (20 << 20))
    return b"HTTP/1.1 500 Boom\r\n" + f"{header}: gzip\r\ncontent-length: {len(packed)}\r\n\r\n".encode() + packed


def kept_open(open_now: set[Connection]) -> Behaviour:
    """Answer everything, and record which connections are open."""

    async def behave(connection: Connection) -> None:
        open_now.add(connection)
        while await connection.request() is not None:
            await connection.send(OK)
        open_now.discard(connection)

    return behave
