"""Service: a small ingest service that keeps the contract, and misbehaves on demand."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import error_details_pb2, status_pb2
from hooktide.error.v1.error_pb2 import EventError
from hooktide.event.v1.event_pb2 import CloudEvent
from hooktide.ingest.v1 import ingest_pb2, ingest_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]


@dataclass
class ServiceEnd:
    """How the service ends a stream."""

    code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE
    reason: str | None = None


@dataclass
class Behaviour:
    """What the service does; tests change it while the service runs."""

    # Returns the refusal of an event, or None to accept it.
    refuse: Callable[[CloudEvent], EventError | None] = lambda _event: None
    # Returns how to end the stream instead of answering a message (its number within the stream, from 0, and its first event), or
    # None.
    end_before_answer: Callable[[int, CloudEvent], ServiceEnd | None] = lambda _number, _event: None
    # How to end every stream before its first message, or None.
    refuse_stream: ServiceEnd | None = None
    # Whether a stream begins with the metadata that says that its key is accepted.
    says_accepted: bool = True
    # Whether a message is stored although its answer is withheld.
    store_before_end: bool = False
    # Whether an answer lacks its last result.
    forget_a_result: Callable[[], bool] = lambda: False
    # While this event is not set, the service answers nothing.
    answering: asyncio.Event = field(default_factory=asyncio.Event)


class IngestOfTests(ingest_pb2_grpc.IngestServiceServicer):
    """Stores events in memory, once for each source and id."""

    def __init__(self) -> None:
        self.behaviour = Behaviour()
        self.behaviour.answering.set()
        self.stored: dict[tuple[str, str], CloudEvent] = {}
        self.seen: list[str] = []
        self.messages: list[int] = []
        self.message_bytes: list[int] = []
        self.streams = 0
        self.streams_open = 0
        self.metadata: list[tuple[str, str | bytes]] = []
        self.changed = asyncio.Condition()

    @property
    def ids(self) -> list[str]:
        """The ids of the stored events, in order."""
        return [event_id for _, event_id in self.stored]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until the service's state meets a condition."""
        async with asyncio.timeout(60), self.changed:
            await self.changed.wait_for(condition)

    async def notify(self) -> None:
        """Wake every task that waits for a condition."""
        async with self.changed:
            self.changed.notify_all()

    async def Publish(  # noqa: N802 - the contract's name
        self, request: ingest_pb2.PublishRequest, context: Context
    ) -> ingest_pb2.PublishResponse:
        """Refuse: the emitter uses one stream for everything."""
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, f"no {request.DESCRIPTOR.name} here")

    async def PublishBatch(  # noqa: N802 - the contract's name
        self, request: ingest_pb2.PublishBatchRequest, context: Context
    ) -> ingest_pb2.PublishBatchResponse:
        """Refuse: the emitter uses one stream for everything."""
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, f"no {request.DESCRIPTOR.name} here")

    async def PublishStream(  # noqa: N802 - the contract's name
        self, request_iterator: AsyncIterator[ingest_pb2.PublishStreamRequest], context: Context
    ) -> AsyncIterator[ingest_pb2.PublishStreamResponse]:
        """Answer each message in order."""
        self.streams += 1
        self.streams_open += 1
        self.metadata = list(context.invocation_metadata() or ())
        if self.behaviour.refuse_stream is not None:
            await abort(context, self.behaviour.refuse_stream)
        if self.behaviour.says_accepted:
            await context.send_initial_metadata((("hooktide-stream", "accepted"),))
        number = 0
        try:
            async for request in request_iterator:
                self.messages.append(len(request.events))
                self.message_bytes.append(request.ByteSize())
                self.seen.extend(event.id for event in request.events)
                await self.notify()
                await self.behaviour.answering.wait()
                end = self.behaviour.end_before_answer(number, request.events[0])
                number += 1
                if end is None or self.behaviour.store_before_end:
                    response = ingest_pb2.PublishStreamResponse(results=[self._store(event) for event in request.events])
                    await self.notify()
                if end is not None:
                    await abort(context, end)
                if self.behaviour.forget_a_result():
                    del response.results[-1]
                yield response
        finally:
            self.streams_open -= 1
            with contextlib.suppress(asyncio.CancelledError):
                await self.notify()

    def _store(self, event: CloudEvent) -> ingest_pb2.PublishResult:
        refusal = self.behaviour.refuse(event)
        if refusal is not None:
            return ingest_pb2.PublishResult(error=refusal)
        key = (event.source, event.id)
        duplicate = key in self.stored
        self.stored.setdefault(key, event)
        position = list(self.stored).index(key) if duplicate else len(self.stored) - 1
        return ingest_pb2.PublishResult(
            receipt=ingest_pb2.PublishReceipt(event_id=f"evt_{event.id}", partition=7, position=position, duplicate=duplicate)
        )


async def abort(context: Context, end: ServiceEnd) -> None:
    """End a call as the contract says, or as a transport error does."""
    if end.reason is None:
        await context.abort(end.code, "as the test wants it")
    detail = AnyMessage()
    detail.Pack(error_details_pb2.ErrorInfo(reason=end.reason or "", domain="hooktide"))
    status = status_pb2.Status(code=end.code.value[0], message="as the test wants it", details=[detail])
    await context.abort(end.code, status.message, trailing_metadata=(("grpc-status-details-bin", status.SerializeToString()),))


@dataclass
class Running:
    """A running service; tests can stop it and start it again on the same port."""

    service: IngestOfTests
    port: int = 0
    server: grpc.aio.Server | None = None

    @property
    def target(self) -> str:
        """The service's address."""
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Listen."""
        self.server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        ingest_pb2_grpc.add_IngestServiceServicer_to_server(self.service, self.server)
        self.port = self.server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self.server.start()

    async def stop(self) -> None:
        """Cut all streams and stop listening."""
        if self.server is not None:
            await self.server.stop(None)
            self.server = None
