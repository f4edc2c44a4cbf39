"""Server: IngestService over gRPC. Protobuf stops here.

A stream's messages enter the log in their order, await their commits side by side and are answered in order;
how many may be under way is bounded, for each stream and for all (`intake.py`), beyond which the stream is read no
further and HTTP/2 holds the emitter back.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.internal.containers import RepeatedCompositeFieldContainer
from google.rpc import code_pb2
from hooktide.error.v1 import error_pb2
from hooktide.ingest.v1 import ingest_pb2, ingest_pb2_grpc

from services.eventlog.record import Appended
from services.ingest.accept import Refusal
from services.ingest.intake import Intake
from services.ingest.publish import Publisher, Result
from services.ingest.registry import Registry
from services.runtime import crash
from services.runtime.access import Access, bearer
from services.runtime.errors import Failure, FieldError, Reason

MESSAGES_UNDER_WAY_MAX = 16
# Of all unary calls together: nothing but their number would hold those back, as flow control does a stream.
UNARY_BYTES_MAX = 64 * 1024 * 1024
_OVERLOADED_RETRY_S = 0.5

RULES = {f"/hooktide.ingest.v1.IngestService/{name}": Access.KEY for name in ("Publish", "PublishBatch", "PublishStream")}

_UnderWay = asyncio.Queue[asyncio.Task["list[Result] | Failure"] | None]
Context = grpc.aio.ServicerContext[Any, Any]


class _Order:
    """What keeps a stream's messages in order: each takes its turn, and after a failure none enters the log any more."""

    def __init__(self) -> None:
        self.turn = asyncio.Lock()
        self.failure: Failure | None = None


class IngestServer(ingest_pb2_grpc.IngestServiceServicer):
    """Answers emitters."""

    def __init__(self, publisher: Publisher, registry: Registry, stopping: asyncio.Event) -> None:
        self._publisher = publisher
        self._registry = registry
        self._stopping = stopping
        self._intake = Intake()
        self._unary_bytes = 0

    async def Publish(self, request: ingest_pb2.PublishRequest, context: Context) -> ingest_pb2.PublishResponse:
        """Append one event."""
        await self._authorize(context)
        with self._counted(request):
            (result,) = await self._publisher.publish([request.event])
        if isinstance(result, Refusal):
            raise _failure(result)
        crash.reached("ingest.before_ack")
        response = ingest_pb2.PublishResponse()
        _fill(response.receipt, result)
        return response

    async def PublishBatch(self, request: ingest_pb2.PublishBatchRequest, context: Context) -> ingest_pb2.PublishBatchResponse:
        """Append several events."""
        await self._authorize(context)
        with self._counted(request):
            response = ingest_pb2.PublishBatchResponse()
            _add(response.results, await self._publisher.publish(request.events))
            return response

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
                    crash.reached("ingest.before_ack")
                    response = ingest_pb2.PublishStreamResponse()
                    _add(response.results, results)
                    try:
                        yield response
                    except GeneratorExit:  # the emitter has gone; a task group would make an error of it
                        break
                    crash.reached("ingest.after_ack")
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
        order = _Order()
        try:
            await self._intake.room()
            async for request in requests:
                publishing = group.create_task(self._publish(request, context, order))
                self._count(request, publishing)
                under_way.put_nowait(publishing)
                await places.acquire()
                await self._intake.room()
        finally:
            # Also after a stop: what was read is still answered.
            under_way.put_nowait(None)

    def _count(self, request: ingest_pb2.PublishStreamRequest, publishing: asyncio.Task["list[Result] | Failure"]) -> None:
        """Count a message as under way until it is in the log or refused; that its answer is read is not waited for."""
        events, size_bytes = len(request.events), request.ByteSize()
        self._intake.take(events, size_bytes)
        publishing.add_done_callback(lambda _done: self._intake.give_back(events, size_bytes))

    async def _publish(self, request: ingest_pb2.PublishStreamRequest, context: Context, order: "_Order") -> list[Result] | Failure:
        """Return the results, or the failure that ends the stream."""
        try:
            async with order.turn:
                if order.failure is not None:
                    return order.failure
                await self._authorize(context)
                accepted = await self._publisher.accepted(request.events)
            # Nothing is awaited between the turn's end and the log's queue, so messages enter it in their order.
            return await self._publisher.append(accepted)
        except Failure as failure:
            order.failure = failure
            return failure

    async def _end_reading(self, reading: asyncio.Task[None]) -> None:
        await self._stopping.wait()
        reading.cancel()

    @contextlib.contextmanager
    def _counted(self, request: ingest_pb2.PublishRequest | ingest_pb2.PublishBatchRequest) -> Iterator[None]:
        """Count a unary call's bytes while it is under way; refuse it where they are too many."""
        size = request.ByteSize()
        if self._unary_bytes and self._unary_bytes + size > UNARY_BYTES_MAX:
            raise Failure(
                Reason.OVERLOADED, "More is being published than is taken at once; send it again.", retry_after_s=_OVERLOADED_RETRY_S
            )
        self._unary_bytes += size
        try:
            yield
        finally:
            self._unary_bytes -= size

    async def _authorize(self, context: Context) -> None:
        authorization = next((str(value) for name, value in context.invocation_metadata() or () if name == "authorization"), "")
        key = bearer(authorization)
        if key is None:
            raise Failure(Reason.KEY_REQUIRED, "Send an API key of the role emitter as `authorization: Bearer hkt_…`.")
        await self._registry.authorize(key)


def _add(messages: RepeatedCompositeFieldContainer[ingest_pb2.PublishResult], results: Sequence[Result]) -> None:
    """Add results to an answer, in place: messages made apart and copied into it take four times as long."""
    for result in results:
        if isinstance(result, Appended):
            _fill(messages.add().receipt, result)
        else:
            messages.add().error.CopyFrom(_error(result))


def _fill(receipt: ingest_pb2.PublishReceipt, appended: Appended) -> None:
    receipt.event_id, receipt.partition, receipt.position, duplicate = appended
    if duplicate:
        receipt.duplicate = True


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
