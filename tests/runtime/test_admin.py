import asyncio
import contextlib

import aiohttp

from services.runtime.admin import admin_app, http_server
from services.runtime.http_connections import ConnectionLimits


async def test_silent_and_slow_connections_do_not_keep_operators_out() -> None:
    """They are closed when their time for headers is over, or give way before that."""
    limits = ConnectionLimits(connections_max=4, headers_s=0.5)
    async with http_server(admin_app(lambda: None), "127.0.0.1:0", limits) as listen, asyncio.timeout(60):
        host, _, port = listen.rpartition(":")
        hostile = [await asyncio.open_connection(host, int(port)) for _ in range(6)]
        for _, writer in hostile[::2]:
            with contextlib.suppress(ConnectionError):
                writer.write(b"GET /healthz HTTP/1.1\r\nx: ")
                await writer.drain()
        async with aiohttp.ClientSession() as http, http.get(f"http://{listen}/readyz") as answer:
            assert (answer.status, await answer.json()) == (200, {"status": "ok"})
        for reader, writer in hostile:
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
            writer.close()
