"""World: a running ingest service with a running registry, as emitters and the other services meet them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from hooktide.event.v1 import event_pb2
from hooktide.ingest.v1 import event_log_pb2, event_log_pb2_grpc, ingest_pb2, ingest_pb2_grpc, notice_pb2_grpc
from hooktide.subscription.v1 import access_pb2, catalogue_pb2

from services.ingest.app import running
from services.runtime.configuration.settings import IngestSettings
from services.runtime.configuration.settings_reader import read_settings
from services.runtime.rpc.channel_and_server import open_channel, service_metadata
from services.runtime.service_process import Addresses, ServiceProcess
from tests.support.system.registry import TOKEN, Client, registry_settings, served

TIMEOUT_S = 60
Stream = grpc.aio.StreamStreamCall[ingest_pb2.PublishStreamRequest, ingest_pb2.PublishStreamResponse]


@dataclass
class World:
    """Both services, and calls to them."""

    folder: Path
    variables: dict[str, str] = field(default_factory=dict)
    process: ServiceProcess = field(default_factory=lambda: ServiceProcess("ingest"))

    registry: Client = field(init=False)
    addresses: Addresses = field(init=False)
    channel: grpc.aio.Channel = field(init=False)
    emitter: str = field(init=False)

    def __post_init__(self) -> None:
        self._registry_stack = contextlib.AsyncExitStack()
        self._ingest_stack = contextlib.AsyncExitStack()
        self._registry_listen = "127.0.0.1:0"

    async def start_registry(self) -> None:
        """Start the registry; use the same address the second time."""
        settings = registry_settings(self.folder, HOOKTIDE_SUBSCRIPTION_LISTEN=self._registry_listen)
        self.registry = await self._registry_stack.enter_async_context(served(settings))
        self._registry_listen = self.registry.listen

    async def stop_registry(self) -> None:
        """Stop the registry."""
        await self._registry_stack.aclose()

    @property
    def settings(self) -> IngestSettings:
        """Return the settings of ingest."""
        environ = {
            "HOOKTIDE_DATA_DIR": str(self.folder),
            "HOOKTIDE_SERVICE_TOKEN": TOKEN,
            "HOOKTIDE_INGEST_LISTEN": "127.0.0.1:0",
            "HOOKTIDE_INGEST_ADMIN_LISTEN": "127.0.0.1:0",
            "HOOKTIDE_SUBSCRIPTION_TARGET": self._registry_listen,
        }
        return read_settings(IngestSettings, environ | self.variables)

    async def start_ingest(self) -> None:
        """Start ingest and connect to it."""
        self.process = ServiceProcess("ingest")
        self.addresses = await self._ingest_stack.enter_async_context(running(self.settings, self.process))
        self.channel = open_channel(self.addresses.listen)
        self.ingest = ingest_pb2_grpc.IngestServiceStub(self.channel)
        self.log = event_log_pb2_grpc.EventLogServiceStub(self.channel)
        self.notices = notice_pb2_grpc.NoticeServiceStub(self.channel)

    async def stop_ingest_service(self) -> None:
        """Stop ingest; keep the connection, as an emitter would."""
        await self._ingest_stack.aclose()

    async def stop_ingest(self) -> None:
        """Stop ingest and close the connection."""
        await self.stop_ingest_service()
        await self.channel.close(None)

    async def key(self, role: access_pb2.Role.ValueType = access_pb2.ROLE_EMITTER) -> access_pb2.CreateKeyResponse:
        """Create a key."""
        owner = await self.registry.consumer() if role == access_pb2.ROLE_CONSUMER else ""
        return await self.registry.key(role, owner)

    async def put_type(self, name: str, *, audience_required: bool) -> None:
        """Write a type into the catalogue."""
        event_type = catalogue_pb2.EventType(name=name, audience_required=audience_required)
        await self.registry.call(self.registry.catalogue.PutEventType, catalogue_pb2.PutEventTypeRequest(event_type=event_type))

    # Emitters

    def metadata(self, key: str | None = None) -> tuple[tuple[str, str], ...]:
        """Return the metadata that an emitter sends."""
        return service_metadata(self.emitter if key is None else key)

    async def publish(self, event: event_pb2.CloudEvent, *, key: str | None = None) -> ingest_pb2.PublishReceipt:
        """Publish one event."""
        request = ingest_pb2.PublishRequest(event=event)
        return (await self.ingest.Publish(request, metadata=self.metadata(key), timeout=TIMEOUT_S)).receipt

    async def publish_batch(self, events: Iterable[event_pb2.CloudEvent], *, key: str | None = None) -> list[ingest_pb2.PublishResult]:
        """Publish several events."""
        request = ingest_pb2.PublishBatchRequest(events=events)
        answer: ingest_pb2.PublishBatchResponse = await self.ingest.PublishBatch(request, metadata=self.metadata(key), timeout=TIMEOUT_S)
        return list(answer.results)

    @contextlib.asynccontextmanager
    async def stream(self, *, key: str | None = None) -> AsyncIterator[Stream]:
        """Open a publishing stream; cancel it at the end."""
        call: Stream = self.ingest.PublishStream(None, metadata=self.metadata(key), timeout=3 * TIMEOUT_S)
        try:
            yield call
        finally:
            call.cancel()

    # Services

    async def call(self, method: Any, request: Any) -> Any:
        """Make a call as a service does."""
        return await method(request, metadata=service_metadata(TOKEN), timeout=TIMEOUT_S)

    @contextlib.asynccontextmanager
    async def follow(self, request: event_log_pb2.FollowLogRequest) -> AsyncIterator["Following"]:
        """Follow the log; cancel the stream at the end."""
        call: Following = self.log.FollowLog(request, metadata=service_metadata(TOKEN), timeout=3 * TIMEOUT_S)
        try:
            yield call
        finally:
            call.cancel()

    async def records(self) -> list[event_log_pb2.LogRecord]:
        """Return all records, oldest first."""
        found: list[event_log_pb2.LogRecord] = []
        token = ""
        while True:
            request = event_log_pb2.ListEventsRequest(consumer_id="*", page_size=200, page_token=token)
            answer = await self.call(self.log.ListEvents, request)
            found += answer.records
            token = answer.next_page_token
            if not token:
                return found[::-1]


Following = grpc.aio.UnaryStreamCall[event_log_pb2.FollowLogRequest, event_log_pb2.FollowLogResponse]


@contextlib.asynccontextmanager
async def running_world(folder: Path, **variables: str) -> AsyncIterator[World]:
    """Run both services; `variables` are settings of ingest."""
    world = World(folder, variables)
    await world.start_registry()
    try:
        world.emitter = (await world.key()).clear_text
        await world.start_ingest()
        try:
            yield world
        finally:
            await world.stop_ingest()
    finally:
        await world.stop_registry()


def message(*events: event_pb2.CloudEvent) -> ingest_pb2.PublishStreamRequest:
    """Return a message for a stream."""
    return ingest_pb2.PublishStreamRequest(events=events)


async def answer(call: Stream) -> ingest_pb2.PublishStreamResponse:
    """Return the next answer of a stream."""
    async with asyncio.timeout(TIMEOUT_S):
        response = await call.read()
    assert isinstance(response, ingest_pb2.PublishStreamResponse), "the stream ended before the answer"
    return response


async def rest(call: Stream) -> list[ingest_pb2.PublishStreamResponse]:
    """Return the remaining answers of a stream that ends without an error."""
    responses: list[ingest_pb2.PublishStreamResponse] = []
    async with asyncio.timeout(TIMEOUT_S):
        while isinstance(response := await call.read(), ingest_pb2.PublishStreamResponse):
            responses.append(response)
    return responses


async def ended(call: grpc.aio.Call) -> grpc.StatusCode:
    """Return the code with which a call ends."""
    async with asyncio.timeout(TIMEOUT_S):
        return await call.code()


def positions(results: Sequence[ingest_pb2.PublishResult]) -> list[int]:
    """Return the positions of results; fail if one is a refusal."""
    assert all(result.WhichOneof("result") == "receipt" for result in results)
    return [result.receipt.position for result in results]
