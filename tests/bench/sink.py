"""Sink: a receiver that costs next to nothing, in a process of its own.

It answers 200 to every POST, counts, and notes when each `webhook-id` first came (in ns of the monotonic
clock, which all processes of a machine share). `GET /count` and `GET /arrivals` tell what it has seen,
`GET /forget` starts anew.
"""

import asyncio
import json
import os
import sys
import time
from typing import cast

import uvloop

_OK = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
_END = b"\r\n\r\n"


class Seen:
    """What has come."""

    def __init__(self) -> None:
        self.count = 0
        self.first: dict[str, int] = {}
        self.last_ns = 0


class Connection(asyncio.Protocol):
    """One keep-alive connection of requests with a content-length."""

    def __init__(self, seen: Seen) -> None:
        self._seen = seen
        self._buffer = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Take whole requests out of what has come so far."""
        buffer = self._buffer + data if self._buffer else data
        while (end := buffer.find(_END)) >= 0:
            head = buffer[:end].lower()
            size_at = head.find(b"content-length:")
            size = int(head[size_at + 15 : head.find(b"\r\n", size_at) if head.find(b"\r\n", size_at) > 0 else None]) if size_at >= 0 else 0
            if len(buffer) < end + 4 + size:
                break
            buffer = buffer[end + 4 + size :]
            self._transport.write(self._answer(head))
        self._buffer = buffer

    def _answer(self, head: bytes) -> bytes:
        if head.startswith(b"post"):
            now = time.monotonic_ns()
            self._seen.count += 1
            self._seen.last_ns = now
            at = head.find(b"webhook-id: ")
            if at >= 0:
                self._seen.first.setdefault(head[at + 12 : head.find(b"\r\n", at)].decode(), now)
            return _OK
        match head.split(b" ", 2)[1]:
            case b"/count":
                answer: object = {"count": self._seen.count, "last_ns": self._seen.last_ns}
            case b"/arrivals":
                answer = self._seen.first
            case _:
                self._seen.__init__()  # type: ignore[misc]  # back to the beginning
                answer = {}
        body = json.dumps(answer).encode()
        return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


async def main(core: int) -> None:
    """Serve until standard input closes; prints the port."""
    os.sched_setaffinity(0, {core})
    loop, seen = asyncio.get_running_loop(), Seen()
    server = await loop.create_server(lambda: Connection(seen), "127.0.0.1", 0, backlog=2048)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    closed = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), closed.set)
    await closed.wait()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
