import asyncio
import contextlib
import itertools
import sqlite3
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import grpc
import pytest
import pytest_asyncio
from hooktide.ingest.v1 import ingest_pb2

from services.runtime.rpc.channel_and_server import service_metadata
from tests.bounds.slow_disk import BYTES_PER_S
from tests.support.memory import MB, resident_bytes, sampled
from tests.support.numbered_events import numbered_event
from tests.support.system.processes import System
from tests.support.waiting import PATIENCE_S, until

_DISK_BYTES_PER_S = 2_000_000
_STREAMS = 24
_ABOVE_IDLE_MAX = 160 * MB
"""Several times the 16 MiB of events under way, and for each stream the transport's read-ahead and one message."""
_Call = grpc.aio.StreamStreamCall[ingest_pb2.PublishStreamRequest, ingest_pb2.PublishStreamResponse]


@dataclass(slots=True)
class Told:
    """What the service has acknowledged."""

    acknowledged: set[str] = field(default_factory=set)
    acknowledged_bytes: int = 0
    """The bytes of the events' data."""


@dataclass(frozen=True, slots=True)
class Slow:
    """The services that publishing needs; ingest has a slow disk."""

    system: System
    idle: int
    """Ingest's resident memory before anything was published, in bytes."""


pytestmark = pytest.mark.slow


@pytest_asyncio.fixture(scope="module")
async def slow(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Slow]:
    path = tmp_path_factory.mktemp("slow")
    system = System(path, {}, module="tests.bounds.slow_disk", extra={BYTES_PER_S: str(_DISK_BYTES_PER_S)})
    try:
        await system.start(("subscription", "ingest"))
        yield Slow(system, resident_bytes(system, "ingest"))
    finally:
        await system.close()


async def _emit_without_end(system: System, run: str, told: Told, events: int, size_bytes: int) -> None:
    """Send messages on a stream of its own as fast as the service takes them, and collect the answers."""
    call: _Call = system.ingest.PublishStream(None, metadata=service_metadata(system.first.emitter))

    async def send() -> None:
        for first in itertools.count(0, events):
            numbers = range(first, first + events)
            await call.write(ingest_pb2.PublishStreamRequest(events=[numbered_event(each, size_bytes, run=run) for each in numbers]))

    async def listen() -> None:
        async for response in call:
            told.acknowledged.update(result.receipt.event_id for result in response.results)
            told.acknowledged_bytes += len(response.results) * size_bytes

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(send())
            group.create_task(listen())
    finally:
        call.cancel()


async def test_emitters_faster_than_the_disk_are_slowed_not_buffered(slow: Slow) -> None:
    """Half of the emitters send large events, half send very many small ones: the queue is bounded in bytes and in number."""
    told = Told()
    async with sampled(slow.system, ["ingest"]) as samples:
        emitting = [
            asyncio.create_task(_emit_without_end(slow.system, f"{number}-", told, *((4, 200_000) if number % 2 else (1000, 60))))
            for number in range(_STREAMS)
        ]
        await until(lambda: told.acknowledged_bytes >= _DISK_BYTES_PER_S, PATIENCE_S, "acknowledgements at the pace of the disk")
        for task in emitting:
            task.cancel()
        await asyncio.gather(*emitting, return_exceptions=True)
    assert samples.most("ingest") - slow.idle < _ABOVE_IDLE_MAX
    with contextlib.closing(sqlite3.connect(slow.system.data_dir / "ingest.db")) as log:
        kept = {f"evt_{row[0].hex()}" for row in log.execute("SELECT event_id FROM events")}
    assert kept >= told.acknowledged


async def test_an_emitter_client_waits_for_a_slow_disk(slow: Slow) -> None:
    """Its emits take as long as the disk, and all of them succeed."""
    count, size_bytes = 800, 2000
    async with slow.system.emitter(timeout=60.0, backlog_events_max=500) as emitter:
        began = time.monotonic()
        async with sampled(slow.system, ["ingest"]) as samples:
            receipts = await asyncio.gather(
                *(emitter.emit_event(numbered_event(number, size_bytes, run="client-")) for number in range(count))
            )
        took_s = time.monotonic() - began
    assert len({receipt.event_id for receipt in receipts}) == count
    assert not any(receipt.duplicate for receipt in receipts)
    assert took_s > count * size_bytes / _DISK_BYTES_PER_S
    assert samples.most("ingest") - slow.idle < _ABOVE_IDLE_MAX
