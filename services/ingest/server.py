"""Server: IngestService over gRPC. Protobuf stops here.

A stream's messages are taken through publishing side by side and answered in order; how many may be
under way is bounded, beyond which the stream is read no further and HTTP/2 holds the emitter back.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2
from hooktide.error.v1 import error_pb2
from hooktide.ingest.v1 import ingest_pb2, ingest_pb2_grpc

from services.eventlog.record import Appended
from services.ingest.accept import Refusal
from services.ingest.publish import Publisher, Result
from services.ingest.registry import Registry
from services.runtime.access import Access, bearer
from services.runtime.errors import Failure, FieldError, Reason

MESSAGES_UNDER_WAY_MAX = 16

RULES = {f"/hooktide.ingest.v1.IngestService/{name}": Access.KEY for name in ("Publish", "PublishBatch", "PublishStream")}

_UnderWay = asyncio.Queue[asyncio.Task["list[Result] | Failure"] | None]
Context = grpc.aio.ServicerContext[Any, Any]


class IngestServer(ingest_pb2_grpc.IngestServiceServicer):
    """Answers emitters."""

    def __init__(self, publisher: Publisher, registry: Registry, stopping: asyncio.Event) -> None:
        self._publisher = publisher
        self._registry = registry
        self._stopping = stopping

    async def Publish(self, request: ingest_pb2.PublishRequest, context: Context) -> ingest_pb2.PublishResponse:
        """Append one event."""
        await self._authorize(context)
        (result,) = await self._publisher.publish([request.event])
        if isinstance(result, Refusal):
            raise _failure(result)
        return ingest_pb2.PublishResponse(receipt=_receipt(result))

    async def PublishBatch(self, request: ingest_pb2.PublishBatchRequest, context: Context) -> ingest_pb2.PublishBatchResponse:
        """Append several events."""
        await self._authorize(context)
        return ingest_pb2.PublishBatchResponse(results=_results(await self._publisher.publish(request.events)))

    async def PublishStream(
        self, request_iterator: AsyncIterator[ingest_pb2.PublishStreamRequest], context: Context
    ) -> AsyncIterator[ingest_pb2.PublishStreamResponse]:
        """Append the events of a stream, message by message, answering in order."""
        await self._authorize(context)
        under_way: _UnderWay = asyncio.Queue()
        places = asyncio.Semaphore(MESSAGES_UNDER_WAY_MAX)
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(self._read(request_iterator, context, under_way, places, group))
            stop = group.create_task(self._end_reading(reading))
            failure: Failure | None = None
            try:
                while (task := await under_way.get()) is not None:
                    results = await task
                    if isinstance(results, Failure):
                        failure = results
                        break
                    places.release()
                    yield ingest_pb2.PublishStreamResponse(results=_results(results))
            finally:
                reading.cancel()
                stop.cancel()
        if failure is not None:
            raise failure

    async def _read(
        self,
        requests: AsyncIterator[ingest_pb2.PublishStreamRequest],
        context: Context,
        under_way: "_UnderWay",
        places: asyncio.Semaphore,
        group: asyncio.TaskGroup,
    ) -> None:
        try:
            async for request in requests:
                under_way.put_nowait(group.create_task(self._publish(request, context)))
                await places.acquire()
        finally:
            # Also after a stop: what was read is still answered.
            under_way.put_nowait(None)

    async def _publish(self, request: ingest_pb2.PublishStreamRequest, context: Context) -> list[Result] | Failure:
        """Return the results, or the failure that ends the stream."""
        try:
            await self._authorize(context)
            return await self._publisher.publish(request.events)
        except Failure as failure:
            return failure

    async def _end_reading(self, reading: asyncio.Task[None]) -> None:
        await self._stopping.wait()
        reading.cancel()

    async def _authorize(self, context: Context) -> None:
        authorization = next((str(value) for name, value in context.invocation_metadata() or () if name == "authorization"), "")
        key = bearer(authorization)
        if key is None:
            raise Failure(Reason.KEY_REQUIRED, "Send an API key of the role emitter as `authorization: Bearer hkt_…`.")
        await self._registry.authorize(key)


def _results(results: Sequence[Result]) -> list[ingest_pb2.PublishResult]:
    return [
        ingest_pb2.PublishResult(receipt=_receipt(result))
        if isinstance(result, Appended)
        else ingest_pb2.PublishResult(error=_error(result))
        for result in results
    ]


def _receipt(appended: Appended) -> ingest_pb2.PublishReceipt:
    event_id, partition, position, duplicate = appended
    return ingest_pb2.PublishReceipt(event_id=event_id, partition=partition, position=position, duplicate=duplicate)


def _error(refusal: Refusal) -> error_pb2.EventError:
    error = error_pb2.EventError(
        reason=refusal.reason.value,
        code=code_pb2.Code.Value(refusal.reason.code.name),
        message=refusal.message,
        field=refusal.field,
    )
    if refusal.retry_after_s is not None:
        delay = Duration()
        delay.FromMilliseconds(int(refusal.retry_after_s * 1000))
        error.retry_after.CopyFrom(delay)
    return error


def _failure(refusal: Refusal) -> Failure:
    fields = [FieldError(f"event.{refusal.field}", refusal.message)] if refusal.field else []
    return Failure(refusal.reason, refusal.message, fields=fields, retry_after_s=refusal.retry_after_s)
