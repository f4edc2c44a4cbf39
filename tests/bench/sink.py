"""Sink: controls a sink's process."""

import asyncio
import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

from tests.bench.rounds import WITHIN_S
from tests.bench.sink_server import addresses
from tests.bench.world import LOAD_CORE
from tests.support.system.processes import ROOT

# Headers that each client adds for its connection and for the body.
_OF_THE_CONNECTION = frozenset({"host", "content-length", "connection", "accept", "accept-encoding"})
_LOOK_S = 0.02


@contextlib.contextmanager
def sink(count: int = 1) -> Iterator["Sink"]:
    """Run a sink with `count` addresses on the load's core."""
    with tempfile.TemporaryDirectory(prefix="hooktide-bench-") as folder:
        command = [sys.executable, "-m", "tests.bench.sink_server", str(LOAD_CORE), folder, str(count)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, text=True) as process:  # noqa: S603 - ours
            try:
                yield Sink(process, count)
            finally:
                process.kill()


class Sink:
    """A running sink; its answers are read one after the other."""

    def __init__(self, process: subprocess.Popen[str], count: int) -> None:
        self._process = process
        self._addresses = addresses(count)
        self._ports = self._heard()
        self.roots = str(self._ports["roots"])
        """The file with the authority's certificate that the sink's certificates are issued by."""

    def urls(self, scheme: str, count: int) -> list[str]:
        """Return the beginnings of `count` URLs, each with another host."""
        return [f"{scheme}://{address}:{self._ports[scheme]}" for address in self._addresses[:count]]

    async def counted(self, count: int, within_s: float = WITHIN_S) -> int:
        """Wait until a number of requests have come; return when the last one came, in ns of the monotonic clock."""
        async with asyncio.timeout(within_s):
            while (seen := await self._asked("count"))["count"] < count:  # noqa: ASYNC110 - another process's
                await asyncio.sleep(_LOOK_S)
        last_ns: int = seen["last_ns"]
        return last_ns

    async def count(self) -> int:
        """Return how many requests have come."""
        seen: int = (await self._asked("count"))["count"]
        return seen

    async def waiting_most(self) -> int:
        """Return the largest number of requests that have waited for their answers at once."""
        most: int = (await self._asked("count"))["waiting_most"]
        return most

    async def order(self) -> list[str]:
        """Return the ids of the events in the order of their arrival, without those that came while the sink was dead."""
        found: list[str] = await self._asked("order")
        return found

    async def behave(self, how: str) -> None:
        """Change how requests are answered: `answer`, `delay <seconds>`, `hold` or `die`."""
        await self._asked(how)

    async def arrivals(self) -> dict[str, int]:
        """Return when each event first came, by event id, in ns of the same clock."""
        found: dict[str, int] = await self._asked("arrivals")
        return found

    async def sample(self) -> tuple[dict[str, str], bytes]:
        """Return the headers and the body of the latest request, without the headers that belong to its connection."""
        head, body = await self._asked("sample")
        lines = [line.partition(": ") for line in head.split("\r\n")[1:] if line]
        return {name: value for name, _, value in lines if name not in _OF_THE_CONNECTION}, body.encode("latin-1")

    async def forget(self) -> None:
        """Forget all requests."""
        await self._asked("forget")

    async def _asked(self, what: str) -> Any:
        return await asyncio.to_thread(self._ask, what)

    def _ask(self, what: str) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()
        return self._heard()

    def _heard(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the sink has ended"
        return json.loads(line)
