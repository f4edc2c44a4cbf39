"""Server: IngestService over gRPC. Protobuf requests and responses stop here.

emitter ─gRPC─▶ [server] → flow_control → event_count → publish → event log

A stream's messages enter the log in order, await their commits concurrently, and are answered in order. The number of messages under
way is bounded for each stream and for all streams (`flow_control.py`). At the bound the server stops reading the stream, so that HTTP/2
applies backpressure to the emitter.

Messages arrive as bytes. Their events are counted before they are parsed (`event_count.py`), since 4 MB of empty events would take 230 MB.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.internal.containers import RepeatedCompositeFieldContainer
from google.rpc import code_pb2
from hooktide.error.v1 import error_pb2
from hooktide.ingest.v1 import ingest_pb2

from services.eventlog.record import Appended
from services.ingest.emitter_authorization import EmitterAuthorizer
from services.ingest.event_count import count_events
from services.ingest.event_validation import EventRefusal
from services.ingest.flow_control import StreamFlowControl
from services.ingest.publish import EVENTS_MAX, Publisher, Result, batch_too_large
from services.runtime import failpoints
from services.runtime.errors import Failure, FieldError, Reason
from services.runtime.rpc.access import Access
from services.runtime.rpc.channel_and_server import authorization_of
from services.runtime.rpc.messages import parsed_message

MESSAGES_UNDER_WAY_MAX = 16
# For all unary calls together: flow control holds back only streams, so without this limit only their number would bound unary calls.
UNARY_BYTES_MAX = 64 * 1024 * 1024
_OVERLOADED_RETRY_S = 0.5

_SERVICE = "hooktide.ingest.v1.IngestService"
RULES = {f"/{_SERVICE}/{name}": Access.KEY for name in ("Publish", "PublishBatch", "PublishStream")}

_STREAM_ACCEPTED = (("hooktide-stream", "accepted"),)

_UnderWay = asyncio.Queue[asyncio.Task["list[Result] | Failure"] | None]
Context = grpc.aio.ServicerContext[Any, Any]


class _StreamOrder:
    """Keeps a stream's messages in order: each message takes its turn, and after a failure no message enters the log."""

    def __init__(self) -> None:
        self.turn = asyncio.Lock()
        self.failure: Failure | None = None


class IngestServer:
    """Answers emitters. Their keys are checked before their messages are read (`runtime/rpc/channel_and_server.py`)."""

    def __init__(self, publisher: Publisher, authorizer: EmitterAuthorizer, stopping: asyncio.Event) -> None:
        self._publisher = publisher
        self._authorizer = authorizer
        self._stopping = stopping
        self._flow_control = StreamFlowControl()
        self._unary_bytes = 0

    def add_to(self, server: grpc.aio.Server) -> None:
        """Add the handlers of the methods, which take messages as bytes."""
        unary, stream = grpc.unary_unary_rpc_method_handler, grpc.stream_stream_rpc_method_handler
        handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "Publish": unary(self.publish, None, ingest_pb2.PublishResponse.SerializeToString),
            "PublishBatch": unary(self.publish_batch, None, ingest_pb2.PublishBatchResponse.SerializeToString),
            "PublishStream": stream(self.publish_stream, None, ingest_pb2.PublishStreamResponse.SerializeToString),
        }
        # As generated code does: gRPC keeps a queue for each method that is added under its name, and one for all others.
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, handlers),))
        server.add_registered_method_handlers(_SERVICE, handlers)

    async def publish(self, message: bytes, context: Context) -> ingest_pb2.PublishResponse:
        """Append the event of a `PublishRequest`."""
        await self._authorize(context)
        with self._counted(message):
            (result,) = await self._publisher.publish([parsed_message(ingest_pb2.PublishRequest.FromString, message).event])
        if isinstance(result, EventRefusal):
            raise _failure(result)
        failpoints.reached("ingest.before_ack")
        response = ingest_pb2.PublishResponse()
        _fill(response.receipt, result)
        return response

    async def publish_batch(self, message: bytes, context: Context) -> ingest_pb2.PublishBatchResponse:
        """Append the events of a `PublishBatchRequest`."""
        await self._authorize(context)
        with self._counted(message):
            if count_events(message, EVENTS_MAX) > EVENTS_MAX:
                raise batch_too_large()
            response = ingest_pb2.PublishBatchResponse()
            add_results(
                response.results, await self._publisher.publish(parsed_message(ingest_pb2.PublishBatchRequest.FromString, message).events)
            )
            return response

    async def publish_stream(self, messages: AsyncIterator[bytes], context: Context) -> AsyncIterator[ingest_pb2.PublishStreamResponse]:
        """Append the events of a stream of `PublishStreamRequest`, message by message; answer in order."""
        authorize = partial(self._authorizer.authorize, authorization_of(context.invocation_metadata()))
        await authorize()
        # A client that writes while its key is refused would learn only that the stream broke, not why.
        await context.send_initial_metadata(_STREAM_ACCEPTED)
        under_way: _UnderWay = asyncio.Queue()  # bounded: by `permits`
        permits = asyncio.Semaphore(MESSAGES_UNDER_WAY_MAX)
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(self._read(messages, authorize, under_way, permits, group))
            stop = group.create_task(self._end_reading(reading))
            failure: Failure | None = None
            try:
                while (task := await under_way.get()) is not None:
                    results = await task
                    if isinstance(results, Failure):
                        failure = results
                        break
                    permits.release()
                    failpoints.reached("ingest.before_ack")
                    response = ingest_pb2.PublishStreamResponse()
                    add_results(response.results, results)
                    try:
                        yield response
                    except GeneratorExit:  # the emitter has gone; a task group would turn this into an error
                        break
                    failpoints.reached("ingest.after_ack")
            finally:
                reading.cancel()
                stop.cancel()
        if failure is not None:
            raise failure

    async def _read(
        self,
        messages: AsyncIterator[bytes],
        authorize: Callable[[], Awaitable[None]],
        under_way: "_UnderWay",
        permits: asyncio.Semaphore,
        group: asyncio.TaskGroup,
    ) -> None:
        order = _StreamOrder()
        try:
            await self._flow_control.wait_for_room()
            async for message in messages:
                events = count_events(message, EVENTS_MAX)
                publishing = group.create_task(self._publish(message, events, authorize, order))
                self._count(events, len(message), publishing)
                under_way.put_nowait(publishing)
                await permits.acquire()
                await self._flow_control.wait_for_room()
        finally:
            # After a stop, too: messages that were read are still answered.
            under_way.put_nowait(None)

    def _count(self, events: int, size_bytes: int, publishing: asyncio.Task["list[Result] | Failure"]) -> None:
        """Count a message as under way until it is in the log or refused; do not wait until the emitter reads the answer."""
        self._flow_control.add(events, size_bytes)
        publishing.add_done_callback(lambda _done: self._flow_control.remove(events, size_bytes))

    async def _publish(
        self, message: bytes, events: int, authorize: Callable[[], Awaitable[None]], order: "_StreamOrder"
    ) -> list[Result] | Failure:
        """Return the results, or the failure that ends the stream."""
        try:
            async with order.turn:
                if order.failure is not None:
                    return order.failure
                await authorize()
                if events > EVENTS_MAX:
                    raise batch_too_large()
                request = parsed_message(ingest_pb2.PublishStreamRequest.FromString, message)
                validated = await self._publisher.validate(request.events)
            # Nothing is awaited between the end of the turn and the log's queue, so messages enter the queue in order.
            return await self._publisher.append(validated)
        except Failure as failure:
            order.failure = failure
            return failure

    async def _end_reading(self, reading: asyncio.Task[None]) -> None:
        await self._stopping.wait()
        reading.cancel()

    @contextlib.contextmanager
    def _counted(self, message: bytes) -> Iterator[None]:
        """Count a unary call's bytes while the call is under way; refuse the call if all calls together have too many bytes."""
        size = len(message)
        if self._unary_bytes and self._unary_bytes + size > UNARY_BYTES_MAX:
            raise Failure(Reason.OVERLOADED, "Too many events are being published; send these again.", retry_after_s=_OVERLOADED_RETRY_S)
        self._unary_bytes += size
        try:
            yield
        finally:
            self._unary_bytes -= size

    async def _authorize(self, context: Context) -> None:
        """Check the key again: the message may have come long after its call began."""
        await self._authorizer.authorize(authorization_of(context.invocation_metadata()))


def add_results(messages: RepeatedCompositeFieldContainer[ingest_pb2.PublishResult], results: Sequence[Result]) -> None:
    """Add results to an answer in place: building separate messages and copying them takes four times as long."""
    for result in results:
        if isinstance(result, Appended):
            _fill(messages.add().receipt, result)
        else:
            messages.add().error.CopyFrom(_error(result))


def _fill(receipt: ingest_pb2.PublishReceipt, appended: Appended) -> None:
    receipt.event_id, receipt.partition, receipt.position, duplicate = appended
    if duplicate:
        receipt.duplicate = True


def _error(refusal: EventRefusal) -> error_pb2.EventError:
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


def _failure(refusal: EventRefusal) -> Failure:
    fields = [FieldError(f"event.{refusal.field}", refusal.message)] if refusal.field else []
    return Failure(refusal.reason, refusal.message, fields=fields, retry_after_s=refusal.retry_after_s)
