"""Endless answers: an endpoint in a process of its own that never stops answering, so that its memory does not count as the sender's.

`python -m tests.support.webhook_receivers.endless_answers 1000` prints its port. All the answers of a thousand requests begin before
any of them goes on. The process ends when its standard input closes.
"""

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator

from tests.support.webhook_receivers.hostile_receivers import Connection, hostile

_PIECE = b"x" * 0x4000


class Crowd:
    """A barrier: callers wait until there are enough of them; then the next crowd gathers."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._here = 0
        self._complete = asyncio.Event()

    async def join(self) -> None:
        """Wait for the others."""
        self._here += 1
        complete = self._complete
        if self._here == self._size:
            complete.set()
            self._here, self._complete = 0, asyncio.Event()
        await complete.wait()

    async def answer(self, connection: Connection) -> None:
        """Answer without end, together with all the others."""
        await connection.request()
        await connection.send(b"HTTP/1.1 500 Said\r\n\r\n" + _PIECE)
        await self.join()
        while True:
            await connection.send(_PIECE)


@contextlib.asynccontextmanager
async def flood(at_once: int) -> AsyncIterator[str]:
    """Run the endpoint; yield its URL."""
    command = (sys.executable, "-m", "tests.support.webhook_receivers.endless_answers", str(at_once))
    process = await asyncio.create_subprocess_exec(*command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        port = int(await asyncio.wait_for(process.stdout.readline(), 20))
        yield f"http://127.0.0.1:{port}/hook"
    finally:
        process.kill()
        await process.wait()


async def _serve(at_once: int) -> None:
    async with hostile(Crowd(at_once).answer) as server:
        sys.stdout.write(f"{server.port}\n")
        sys.stdout.flush()
        ended = asyncio.Event()
        # Nothing is ever written to this pipe: it becomes readable when it closes.
        asyncio.get_running_loop().add_reader(sys.stdin.fileno(), ended.set)
        await ended.wait()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1])))
