import asyncio
import contextlib

import aiohttp
import pytest

from services.runtime.http.admin import admin_app, http_server
from services.runtime.http.connection_limits import ConnectionLimits


async def test_silent_and_slow_connections_do_not_keep_operators_out() -> None:
    """Such connections are closed when their time for headers is over, or earlier to make room."""
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


async def test_what_is_no_http_is_answered_and_leaves_no_traceback_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async with http_server(admin_app(lambda: None), "127.0.0.1:0") as listen, asyncio.timeout(60):
        host, _, port = listen.rpartition(":")
        for junk in (
            b"NONSENSE\r\n\r\n",
            b"GET / HTTP/9.9\r\n\r\n",
            b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
            b"\x16\x03\x01\x02\x00\r\n\r\n",
        ):
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(junk)
            assert b" 400 Bad Request" in (await reader.read()).partition(b"\r\n")[0]
            writer.close()
    assert caplog.records == []
