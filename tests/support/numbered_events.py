"""Numbered events, and a stream that publishes them, so that an endpoint can tell in which order they came."""

from collections.abc import AsyncIterator, Awaitable, Callable

import grpc
from hooktide.event.v1 import event_pb2
from hooktide.ingest.v1 import ingest_pb2

from services.runtime.rpc.channel_and_server import service_metadata
from tests.support.events import cloud_event
from tests.support.system.processes import System

TYPE = "bounds.made"


def numbered_event(number: int, size_bytes: int = 1000, *, run: str = "") -> event_pb2.CloudEvent:
    """Return the event with a number within a run; its data has about `size_bytes`."""
    data = f'{{"n":{number},"fill":"{"x" * max(0, size_bytes - 30)}"}}'
    return cloud_event(f"{run}{number:09d}", TYPE, data, source="/bounds")


async def publish_numbered(
    system: System,
    count: int,
    *,
    size_bytes: int = 1000,
    per_message: int = 100,
    run: str = "",
    pace: Callable[[int], Awaitable[None]] | None = None,
) -> list[ingest_pb2.PublishReceipt]:
    """Publish numbered events on one stream, in order; return their receipts when all are acknowledged.

    `pace` is awaited before each message, with the number of the message's first event.
    """
    per_message = min(per_message, max(1, 1_000_000 // size_bytes))

    async def messages() -> AsyncIterator[ingest_pb2.PublishStreamRequest]:
        for start in range(0, count, per_message):
            if pace is not None:
                await pace(start)
            yield ingest_pb2.PublishStreamRequest(
                events=[numbered_event(each, size_bytes, run=run) for each in range(start, min(count, start + per_message))]
            )

    call: grpc.aio.StreamStreamCall[ingest_pb2.PublishStreamRequest, ingest_pb2.PublishStreamResponse]
    call = system.ingest.PublishStream(messages(), metadata=service_metadata(system.first.emitter))
    receipts: list[ingest_pb2.PublishReceipt] = []
    async for response in call:
        for result in response.results:
            assert result.HasField("receipt"), result.error
            receipts.append(result.receipt)
    return receipts
