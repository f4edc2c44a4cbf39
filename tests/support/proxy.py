"""Proxy: an operator's HTTP proxy on this machine."""

import asyncio
import contextlib
from collections.abc import AsyncIterator


class Proxy:
    """A proxy that opens tunnels and records the requests for them."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.authorizations: set[str] = set()
        """The credentials that clients presented."""
        self.refusing = b""
        self.url = ""

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one tunnel."""
        head = await reader.readuntil(b"\r\n\r\n")
        method, target, _ = head.decode().split(" ", 2)
        self.asked.append(f"{method} {target}")
        self.authorizations |= {
            line.partition(":")[2].strip() for line in head.decode().split("\r\n") if line.lower().startswith("proxy-authorization:")
        }
        if self.refusing:
            writer.write(self.refusing)
            writer.close()
            return
        host, _, port = target.rpartition(":")
        there_reader, there_writer = await asyncio.open_connection(host.strip("[]"), int(port))
        writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")
        await asyncio.gather(_copy(reader, there_writer), _copy(there_reader, writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


@contextlib.asynccontextmanager
async def running_proxy() -> AsyncIterator[Proxy]:
    """Run a proxy."""
    proxy = Proxy()
    server = await asyncio.start_server(proxy.take, "127.0.0.1", 0)
    proxy.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield proxy
        server.close()
