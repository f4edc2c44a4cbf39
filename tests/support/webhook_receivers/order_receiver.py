"""Order receiver: an endpoint in a process of its own that costs little and remembers the order of numbered events.

Events carry their number as `{"n": 7, …}` (`numbered_events.py` makes them). Every path is an endpoint of its own. For each the process
keeps two arrays of numbers, in the order of arrival: first attempts, and later attempts.
"""

import array
import asyncio
import contextlib
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from typing import cast

import aiohttp
import uvloop

from tests.support.system.processes import ROOT

_OK = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_NUMBER = re.compile(rb'"data":\{"n":(\d+)')
_FIRST = re.compile(rb"\r\nhooktide-attempt: *1\r\n", re.IGNORECASE)
_CODE = "I"


class Connection(asyncio.Protocol):
    """One keep-alive connection whose requests have a Content-Length."""

    def __init__(self, arrived: dict[bytes, "array.array[int]"]) -> None:
        self._arrived = arrived
        self._buffer = bytearray()
        self._transport: asyncio.WriteTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.WriteTransport", transport)  # uvloop's transport is no subclass of asyncio's

    def data_received(self, data: bytes) -> None:
        """Answer each whole request that has arrived."""
        buffer = self._buffer
        buffer += data
        while (end := buffer.find(_END)) >= 0:
            length = _LENGTH.search(buffer, 0, end + 2)
            begin = end + len(_END)
            stop = begin + (int(length[1]) if length else 0)
            if len(buffer) < stop:
                break
            method, path, _ = bytes(buffer[: buffer.index(b"\r\n")]).split(b" ", 2)
            if method == b"POST":
                number = _NUMBER.search(buffer, begin, stop)
                assert number is not None, "no numbered event"
                kind = b"/first" if _FIRST.search(buffer, 0, end + 2) else b"/again"
                self._arrived.setdefault(kind + path, array.array(_CODE)).append(int(number[1]))
                self._transport.write(_OK)
            else:
                self._tell(path)
            del buffer[:stop]

    def _tell(self, path: bytes) -> None:
        """Answer `GET /count/…` with the count, `GET /first/…` and `/again/…` with the numbers."""
        endpoint = path[path.index(b"/", 1) :]
        if path.startswith(b"/count/"):
            body = str(sum(len(self._arrived.get(kind + endpoint, b"")) for kind in (b"/first", b"/again"))).encode()
        else:
            body = self._arrived.get(path, array.array(_CODE)).tobytes()
        self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)


class OrderReceiver:
    """The receiver's process, which a test may stop and start again at the same port."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._http: aiohttp.ClientSession | None = None
        self._port = 0

    def url(self, path: str) -> str:
        """Return the URL of an endpoint."""
        return f"http://127.0.0.1:{self._port}/{path}"

    @property
    def pid(self) -> int:
        """The process id."""
        assert self._process is not None
        return self._process.pid

    async def up(self) -> None:
        """Start the process."""
        command = [sys.executable, "-m", "tests.support.webhook_receivers.order_receiver", str(self._port)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT)  # noqa: S603, ASYNC220 - ours, and quick
        assert self._process.stdout is not None
        self._port = int(await asyncio.to_thread(self._process.stdout.readline))
        self._http = self._http or aiohttp.ClientSession()

    def down(self) -> None:
        """End the process; it forgets everything."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    async def count(self, path: str) -> int:
        """Return how many requests an endpoint has answered."""
        return int(await self._get(f"count/{path}"))

    async def first(self, path: str) -> list[int]:
        """Return the numbers of the events that came in first attempts, in order."""
        return list(array.array(_CODE, await self._get(f"first/{path}")))

    async def again(self, path: str) -> list[int]:
        """Return the numbers of the events that came in later attempts, in order."""
        return list(array.array(_CODE, await self._get(f"again/{path}")))

    async def counted(self, path: str, count: int, within_s: float) -> None:
        """Wait until an endpoint has answered a number of requests."""
        end = time.monotonic() + within_s
        while (seen := await self.count(path)) < count:
            assert time.monotonic() < end, f"not within {within_s} s: {count} at /{path}; it is {seen}"
            await asyncio.sleep(0.02)

    async def close(self) -> None:
        """End everything."""
        self.down()
        if self._http is not None:
            await self._http.close()

    async def _get(self, path: str) -> bytes:
        assert self._http is not None
        async with self._http.get(self.url(path)) as answer:
            return await answer.read()


@contextlib.asynccontextmanager
async def running_order_receiver() -> AsyncIterator[OrderReceiver]:
    """Run a receiver."""
    orders = OrderReceiver()
    await orders.up()
    try:
        yield orders
    finally:
        await orders.close()


async def main(port: int) -> None:
    """Serve until standard input closes; print the port."""
    loop = asyncio.get_running_loop()
    arrived: dict[bytes, array.array[int]] = {}
    server = await loop.create_server(lambda: Connection(arrived), "127.0.0.1", port, backlog=2048)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    closed = asyncio.Event()
    loop.add_signal_handler(signal.SIGINT, closed.set)
    loop.add_reader(sys.stdin.fileno(), closed.set)
    await closed.wait()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
