"""Raw HTTP: requests written byte by byte, for requests that no client library would send."""

import asyncio
import socket
from dataclasses import dataclass, field

from tests.gateway.world import Answer


@dataclass(slots=True)
class Wire:
    """One connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    interim: list[int] = field(default_factory=list)

    async def send(self, *parts: bytes) -> None:
        """Send raw bytes."""
        for part in parts:
            self.writer.write(part)
            await self.writer.drain()

    async def answer(self, *, has_body: bool = True) -> Answer:
        """Read one answer to its end; collect interim answers (1xx) in `interim`."""
        async with asyncio.timeout(60):
            status, headers = await self._head()
            while status < 200:
                self.interim.append(status)
                status, headers = await self._head()
            length = int(headers.get("content-length", "0")) if has_body else 0
            return Answer(status, headers, await self.reader.readexactly(length))

    async def ended(self) -> bool:
        """Wait until the other side closes; return whether nothing came before."""
        async with asyncio.timeout(60):
            try:
                return await self.reader.read() == b""
            except ConnectionResetError:
                return True

    async def _head(self) -> tuple[int, dict[str, str]]:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.rstrip("\r\n").split("\r\n")
        pairs = (line.partition(": ") for line in lines)
        return int(first.split()[1]), {name.lower(): value for name, _, value in pairs}


class Dialled:
    """A connection that is open within a block."""

    def __init__(self, address: str, *, receive_bytes: int | None = None, local: str | None = None) -> None:
        """Take the server's address, the size of the receive buffers after which the server must wait, and the local address."""
        self._host, _, self._port = address.rpartition(":")
        self._receive_bytes = receive_bytes
        self._local = local

    async def __aenter__(self) -> Wire:
        connection = socket.socket()
        connection.setblocking(False)  # noqa: FBT003 - the library's signature
        if self._receive_bytes is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_bytes)
        if self._local is not None:
            connection.bind((self._local, 0))
        await asyncio.get_running_loop().sock_connect(connection, (self._host, int(self._port)))
        self._wire = Wire(*await asyncio.open_connection(sock=connection, limit=self._receive_bytes or 2**20))
        return self._wire

    async def __aexit__(self, *_failure: object) -> None:
        self._wire.writer.close()


def head(method: str, path: str, *lines: str) -> bytes:
    """Return the head of a request."""
    return "\r\n".join((f"{method} {path} HTTP/1.1", "host: gateway", *lines, "", "")).encode()
