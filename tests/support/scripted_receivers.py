"""Scripted receivers: servers on loopback that answer as a test says."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from aiohttp import web

Respond = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class RawServer:
    """A server below HTTP, and the requests that it has received."""

    port: int = 0
    connections: int = 0
    requests: list[bytes] = field(default_factory=list)
    arrived: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def url(self) -> str:
        """Return the server's URL."""
        return f"http://127.0.0.1:{self.port}/hook"

    async def take(self, request: bytes) -> None:
        """Record a request."""
        async with self.arrived:
            self.requests.append(request)
            self.arrived.notify_all()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition on the received requests holds."""
        async with asyncio.timeout(60), self.arrived:
            await self.arrived.wait_for(condition)


@contextlib.asynccontextmanager
async def raw_server(respond: Respond, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[RawServer]:
    """Serve connections: read each request to its end, then call `respond`."""
    state = RawServer()
    writers: set[asyncio.StreamWriter] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        state.connections += 1
        writers.add(writer)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                await state.take(await read_request(reader))
                await respond(reader, writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    state.port = server.sockets[0].getsockname()[1]
    try:
        yield state
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        await server.wait_closed()


async def read_request(reader: asyncio.StreamReader) -> bytes:
    """Read a request with a Content-Length; return all of it."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    return head + await reader.readexactly(length)


def answering(text: bytes, *, close: bool = False) -> Respond:
    """Return a `respond` that writes a fixed text."""

    async def respond(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(text)
        await writer.drain()
        if close:
            writer.close()

    return respond


@dataclass(frozen=True)
class Hook:
    """A webhook as it arrived."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def event_id(self) -> str:
        """Return the event's id."""
        return self.headers["webhook-id"]

    @property
    def attempt(self) -> int:
        """Return the attempt number that its header states."""
        return int(self.headers["hooktide-attempt"])


@dataclass
class Receiver:
    """An aiohttp application that takes webhooks; `answer` returns the status."""

    port: int = 0
    hooks: list[Hook] = field(default_factory=list)
    answer: Callable[[Hook], int] = lambda _hook: 200
    arrived: asyncio.Condition = field(default_factory=asyncio.Condition)

    def url(self, path: str = "/hook") -> str:
        """Return the receiver's URL."""
        return f"http://127.0.0.1:{self.port}{path}"

    async def take(self, request: web.Request) -> web.Response:
        """Handle a request."""
        headers = {name.lower(): value for name, value in request.headers.items()}
        hook = Hook(request.path, headers, await request.read())
        async with self.arrived:
            self.hooks.append(hook)
            self.arrived.notify_all()
        return web.Response(status=self.answer(hook))

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition on the arrived webhooks holds."""
        async with asyncio.timeout(60), self.arrived:
            await self.arrived.wait_for(condition)


@contextlib.asynccontextmanager
async def receiver(port: int = 0) -> AsyncIterator[Receiver]:
    """Run a receiver."""
    state = Receiver()
    application = web.Application(client_max_size=8 * 1024 * 1024)
    application.router.add_route("*", "/{path:.*}", state.take)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, reuse_address=True).start()
    state.port = runner.addresses[0][1]
    try:
        yield state
    finally:
        await runner.cleanup()
