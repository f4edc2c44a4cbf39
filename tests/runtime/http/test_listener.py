import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator

import pytest
import trustme
from aiohttp import web

from services.runtime.http.connection_limits import Connection, ConnectionLimits
from services.runtime.http.listener import Gate, GuardedConnection, accepting

AUTHORITY = trustme.CA()


@contextlib.asynccontextmanager
async def served(gate: Gate, tls: ssl.SSLContext | None = None) -> AsyncIterator[tuple[str, int]]:
    """Answer every request with 204; yield host and port."""

    async def handler(_request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=204)

    server, loop = web.Server(handler), asyncio.get_running_loop()
    runner = web.ServerRunner(server)
    await runner.setup()

    def connect(connection: Connection) -> GuardedConnection:
        return GuardedConnection(server, gate, connection, loop=loop, access_log=None)

    async with accepting(connect, gate, "127.0.0.1:0", tls=tls) as listen:
        host, _, port = listen.rpartition(":")
        yield host, int(port)
    await runner.cleanup()


async def status(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """Send a request and return the status line of its answer."""
    writer.write(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
    return (await reader.readuntil(b"\r\n\r\n")).partition(b"\r\n")[0]


async def test_silence_before_a_tls_handshake_ends_with_the_time_for_headers_and_gives_way() -> None:
    """Aiohttp hears of a connection only after the handshake; the listener counts it from its acceptance."""
    trusted = ssl.create_default_context()
    AUTHORITY.configure_trust(trusted)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    AUTHORITY.issue_cert("127.0.0.1").configure_cert(context)
    gate = Gate(ConnectionLimits(connections_max=2, headers_s=1.0))
    async with served(gate, context) as (host, port), asyncio.timeout(60):
        first = await asyncio.open_connection(host, port)
        # The beginning of a handshake, and nothing after it.
        first[1].write(b"\x16\x03")
        second = await asyncio.open_connection(host, port)
        while len(gate.connections) < 2:  # noqa: ASYNC110 - the server's side of a connection
            await asyncio.sleep(0.001)
        honest = await asyncio.open_connection(host, port, ssl=trusted)
        assert await first[0].read() == b""
        assert await status(*honest) == b"HTTP/1.1 204 No Content"
        assert await second[0].read() == b""
        assert len(gate.connections) == 1
        for _, writer in (first, second, honest):
            writer.close()


async def test_what_is_no_tls_is_closed_and_the_listener_goes_on() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    AUTHORITY.issue_cert("127.0.0.1").configure_cert(context)
    gate = Gate(ConnectionLimits())
    async with served(gate, context) as (host, port), asyncio.timeout(60):
        for _ in range(3):
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
            with contextlib.suppress(ConnectionError):
                await reader.read()
            writer.close()
        while len(gate.connections):  # noqa: ASYNC110 - the server's side of a connection
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("connections_max", [1, 3])
async def test_every_connection_is_counted_until_it_is_closed(connections_max: int) -> None:
    """Any number of connections come and go, and either side closes them."""
    gate = Gate(ConnectionLimits(connections_max=connections_max))
    async with served(gate) as (host, port), asyncio.timeout(60):
        writers = []
        for number in range(40):
            reader, writer = await asyncio.open_connection(host, port)
            writers.append(writer)
            if number % 3 == 0:
                assert await status(reader, writer) == b"HTTP/1.1 204 No Content"
            if number % 2 == 0:
                writer.transport.abort()
            assert len(gate.connections) <= connections_max
        for writer in writers:
            writer.transport.abort()
        while len(gate.connections):  # noqa: ASYNC110 - the server's side of a connection
            await asyncio.sleep(0.001)
