"""Load: events of about 1 KB, and the stream that publishes them as fast as the log takes them."""

import json
import time
from collections.abc import AsyncIterable, AsyncIterator, Sequence

from hooktide.event.v1 import event_pb2
from hooktide.ingest.v1 import ingest_pb2

from tests.support.events import cloud_event
from tests.support.system.processes import System

PER_MESSAGE = 100
PER_MESSAGE_MAX = 1_000
"""How many events ingest takes in one message; a stream that was kept from running sends its arrears in several."""
_DATA = json.dumps({"order": "o" * 40, "items": [{"sku": f"sku-{n:04}", "quantity": n, "note": "n" * 60} for n in range(8)], "total": 1234})

Batch = ingest_pb2.PublishStreamRequest


def source(number: int) -> str:
    """Return the source with a number."""
    return f"/bench/{number}"


def event(number: int, run: str = "", type_: str = "bench.made", sources: int = 1) -> event_pb2.CloudEvent:
    """Return an event of about 1 KB, from one of some sources in turn."""
    return cloud_event(
        f"{run}{number:012d}",
        type_,
        _DATA,
        source=source(number % sources),
        datacontenttype="application/json",
        subject=f"s-{number % 997}",
    )


def events(count: int, run: str, type_: str = "bench.made", sources: int = 1) -> list[event_pb2.CloudEvent]:
    """Return events that are made beforehand: their making is not measured."""
    return [event(number, run, type_, sources) for number in range(count)]


def batches(made: Sequence[event_pb2.CloudEvent]) -> list[Batch]:
    """Return a stream's messages, each with many events."""
    return [Batch(events=made[start : start + PER_MESSAGE]) for start in range(0, len(made), PER_MESSAGE)]


def publish(system: System, sent: AsyncIterator[Batch]) -> AsyncIterable[ingest_pb2.PublishStreamResponse]:
    """Publish over one stream; return its answers."""
    return system.ingest.PublishStream(sent, metadata=(("authorization", f"Bearer {system.first.emitter}"),))


async def publish_at_once(system: System, sent: Sequence[Batch]) -> float:
    """Publish as fast as possible with many messages under way; return the seconds until the last receipt."""

    async def send() -> AsyncIterator[Batch]:
        for batch in sent:
            yield batch

    began = time.perf_counter()
    receipts = 0
    async for answer in publish(system, send()):
        receipts += sum(1 for result in answer.results if result.HasField("receipt"))
    took_s = time.perf_counter() - began
    refused = sum(len(batch.events) for batch in sent) - receipts
    assert not refused, f"{refused} events were refused"
    return took_s
