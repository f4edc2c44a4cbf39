"""World: the system, its load and its sinks, on their cores."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from hooktide.event.v1 import event_pb2
from hooktide.ingest.v1 import ingest_pb2

from tests.e2e.consumers import Consumer, new_consumer
from tests.system.processes import ROOT, System

SERVICE_CORE, LOAD_CORE = 0, 1
_DATA = json.dumps({"order": "o" * 40, "items": [{"sku": f"sku-{n:04}", "quantity": n, "note": "n" * 60} for n in range(8)], "total": 1234})


def event(number: int, *, type_: str = "bench.made", run: str = "") -> event_pb2.CloudEvent:
    """Return an event of about 1 KB."""
    made = event_pb2.CloudEvent(id=f"{run}{number:012d}", source="/bench", spec_version="1.0", type=type_, text_data=_DATA)
    made.attributes["datacontenttype"].ce_string = "application/json"
    made.attributes["subject"].ce_string = f"s-{number % 997}"
    return made


def requests(count: int, per_message: int, run: str, type_: str = "bench.made") -> list[ingest_pb2.PublishStreamRequest]:
    """Return a stream's messages, made beforehand so that making them is not measured."""
    return [
        ingest_pb2.PublishStreamRequest(events=[event(n, run=run, type_=type_) for n in range(start, min(count, start + per_message))])
        for start in range(0, count, per_message)
    ]


@contextlib.asynccontextmanager
async def bench_system(*names: str) -> AsyncIterator[System]:
    """Run services on their core; without names, all four."""
    with tempfile.TemporaryDirectory(prefix="hooktide-bench-") as folder:
        system = System(Path(folder), {}, module="tests.bench.serve", extra={"BENCH_CORE": str(SERVICE_CORE)})
        try:
            await (system.start(names) if names else system.start())
            yield system
        finally:
            await system.close()


@contextlib.contextmanager
def sink() -> Iterator["Sink"]:
    """Run a sink on the load's core."""
    command = [sys.executable, "-m", "tests.bench.sink", str(LOAD_CORE)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as process:  # noqa: S603 - ours
        assert process.stdout is not None
        try:
            yield Sink(int(process.stdout.readline()))
        finally:
            process.kill()


class Sink:
    """A running sink."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def _get(self, path: str) -> dict[str, int]:
        with urllib.request.urlopen(f"{self.url}{path}", timeout=30) as answer:  # noqa: S310 - our own
            found: dict[str, int] = json.loads(answer.read())
            return found

    async def counted(self, count: int, within_s: float = 120.0) -> int:
        """Wait until so many requests have come; returns when the last came, in ns of the monotonic clock."""
        async with asyncio.timeout(within_s):
            while (seen := await asyncio.to_thread(self._get, "/count"))["count"] < count:  # noqa: ASYNC110 - another process's
                await asyncio.sleep(0.05)
        return seen["last_ns"]

    async def arrivals(self) -> dict[str, int]:
        """Return when each event came first, by event id."""
        return await asyncio.to_thread(self._get, "/arrivals")

    async def forget(self) -> None:
        """Start anew."""
        await asyncio.to_thread(self._get, "/forget")


async def bench_consumer(system: System) -> Consumer:
    """Make a consumer."""
    return await new_consumer(system, "bench")


def pin() -> None:
    """Put this process on the load's core."""
    os.sched_setaffinity(0, {LOAD_CORE})
