"""Fake upstreams: an event log and a ledger of the tests' own, as real gRPC servers over records that the tests write."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message
from hooktide.delivery.v1 import delivery_pb2, delivery_pb2_grpc
from hooktide.event.v1 import event_pb2
from hooktide.ingest.v1 import event_log_pb2, event_log_pb2_grpc
from hooktide.subscription.v1 import subscription_pb2, subscription_pb2_grpc

from services.runtime.consumer_scope import Scope
from services.runtime.errors import Failure, Reason, failure_from_rpc
from services.runtime.ids import new_id
from services.runtime.paging import page_size, page_token, parse_page_token
from services.runtime.rpc.access import Access
from services.runtime.rpc.channel_and_server import Server, service_metadata
from services.runtime.rpc.requested_scope import requested_scope

Context = grpc.aio.ServicerContext[Any, Any]
_Item = TypeVar("_Item", bound=Message)

LOG_RULES = {f"/hooktide.ingest.v1.EventLogService/{name}": Access.SERVICE for name in ("GetEvent", "ListEvents")}
LEDGER_RULES = {
    f"/hooktide.delivery.v1.DeliveryService/{name}": Access.SERVICE
    for name in ("GetDelivery", "ListDeliveries", "GetReadiness", "VerifySink", "SendTestEvent")
}


class Log(event_log_pb2_grpc.EventLogServiceServicer):
    """An event log; the newest record is the last."""

    def __init__(self) -> None:
        self.records: list[event_log_pb2.LogRecord] = []
        # The failure with which every call ends, and the event for which a call waits before it answers.
        self.failure: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.waiting = asyncio.Event()
        self.under_way = 0

    def append(self, event: event_pb2.CloudEvent, *, audience: str = "", accepted_unix_ms: int = 1_900_000_000_000) -> str:
        """Append an event and return its id."""
        record = event_log_pb2.LogRecord(
            partition=len(self.records) % 256,
            position=len(self.records) + 1,
            event_id=new_id("evt"),
            type=event.type,
            source=event.source,
            audience=audience,
            accepted_unix_ms=accepted_unix_ms,
            event=event.SerializeToString(),
        )
        self.records.append(record)
        return record.event_id

    async def GetEvent(  # noqa: N802 - the contract's name
        self, request: event_log_pb2.GetEventRequest, _context: Context
    ) -> event_log_pb2.GetEventResponse:
        """Return one event."""
        await self._before()
        scope = requested_scope(request.consumer_id)
        for record in self.records:
            if record.event_id == request.event_id and _sees(scope, record.audience):
                return event_log_pb2.GetEventResponse(record=record)
        raise Failure(Reason.EVENT_NOT_FOUND, "There is no such event.")

    async def ListEvents(  # noqa: N802 - the contract's name
        self, request: event_log_pb2.ListEventsRequest, _context: Context
    ) -> event_log_pb2.ListEventsResponse:
        """Return a page of events."""
        await self._before()
        scope = requested_scope(request.consumer_id)
        start_ms = request.start_time.ToMilliseconds() if request.HasField("start_time") else 0
        end_ms = request.end_time.ToMilliseconds() if request.HasField("end_time") else 1 << 62
        found = [
            record
            for record in reversed(self.records)
            if _sees(scope, record.audience)
            and request.type in {"", record.type}
            and request.source in {"", record.source}
            and start_ms <= record.accepted_unix_ms < end_ms
        ]
        page, token = _page("events", found, request.page_size, request.page_token)
        return event_log_pb2.ListEventsResponse(records=page, next_page_token=token)

    async def _before(self) -> None:
        self.waiting.set()
        self.under_way += 1
        try:
            await self.gate.wait()
        finally:
            self.under_way -= 1
        if self.failure is not None:
            raise self.failure


class Ledger(delivery_pb2_grpc.DeliveryServiceServicer):
    """A ledger, whose newest delivery is the last, and a delivery service that asks no sink and has a fixed answer for each."""

    def __init__(self) -> None:
        self.deliveries: list[delivery_pb2.Delivery] = []
        # What every list tells besides its deliveries.
        self.besides = delivery_pb2.ListDeliveriesResponse()
        # The answer of every sink, and the callback token of the latest handshake.
        self.consent = subscription_pb2.Verification(state=subscription_pb2.VERIFICATION_STATE_PENDING, detail="it may consent later")
        self.callback_token = ""
        # Why the service does not do its work; empty: it does.
        self.why_not_ready = ""
        # The attempt that a test event makes.
        self.attempt = delivery_pb2.Attempt()
        self._registry: tuple[grpc.aio.Channel, str] | None = None

    def report_to(self, registry: grpc.aio.Channel, token: str) -> None:
        """Set the registry that gets the sinks' answers."""
        self._registry = registry, token

    async def GetReadiness(  # noqa: N802 - the contract's name
        self, _request: delivery_pb2.GetReadinessRequest, _context: Context
    ) -> delivery_pb2.GetReadinessResponse:
        """Return why the service does not do its work."""
        return delivery_pb2.GetReadinessResponse(why_not_ready=self.why_not_ready)

    async def RepairRouting(  # noqa: N802 - the contract's name
        self, _request: delivery_pb2.RepairRoutingRequest, _context: Context
    ) -> delivery_pb2.RepairRoutingResponse:
        """Answer that there is nothing to repair."""
        return delivery_pb2.RepairRoutingResponse()

    async def VerifySink(  # noqa: N802 - the contract's name
        self, request: delivery_pb2.VerifySinkRequest, _context: Context
    ) -> delivery_pb2.VerifySinkResponse:
        """Ask no sink, and report the fixed answer."""
        assert self._registry is not None
        channel, token = self._registry
        stub, metadata = subscription_pb2_grpc.SubscriptionServiceStub(channel), service_metadata(token)
        begin = subscription_pb2.BeginVerificationRequest(consumer_id=request.consumer_id, subscription_id=request.subscription_id)
        try:
            begun = await stub.BeginVerification(begin, metadata=metadata)
            self.callback_token = begun.callback_token
            report = subscription_pb2.ReportVerificationRequest(
                subscription_id=request.subscription_id,
                sink_revision=begun.subscription.subscription.sink_revision,
                verification=self.consent,
            )
            await stub.ReportVerification(report, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            raise failure_from_rpc(error) from None
        return delivery_pb2.VerifySinkResponse()

    async def SendTestEvent(  # noqa: N802 - the contract's name
        self, request: delivery_pb2.SendTestEventRequest, _context: Context
    ) -> delivery_pb2.SendTestEventResponse:
        """Send nothing, and return the fixed attempt."""
        assert self._registry is not None
        channel, token = self._registry
        stub, get = subscription_pb2_grpc.SubscriptionServiceStub(channel), subscription_pb2.GetSubscriptionRequest
        try:
            await stub.GetSubscription(get(consumer_id=request.consumer_id, id=request.subscription_id), metadata=service_metadata(token))
        except grpc.aio.AioRpcError as error:
            raise failure_from_rpc(error) from None
        return delivery_pb2.SendTestEventResponse(event_id="evt_" + "7" * 32, attempt=self.attempt)

    async def GetDelivery(  # noqa: N802 - the contract's name
        self, request: delivery_pb2.GetDeliveryRequest, _context: Context
    ) -> delivery_pb2.GetDeliveryResponse:
        """Return one delivery."""
        scope = requested_scope(request.consumer_id)
        for delivery in self.deliveries:
            if delivery.id == request.id and scope.includes(delivery.consumer_id):
                return delivery_pb2.GetDeliveryResponse(delivery=delivery)
        raise Failure(Reason.DELIVERY_NOT_FOUND, "There is no such delivery.")

    async def ListDeliveries(  # noqa: N802 - the contract's name
        self, request: delivery_pb2.ListDeliveriesRequest, _context: Context
    ) -> delivery_pb2.ListDeliveriesResponse:
        """Return a page of deliveries."""
        scope = requested_scope(request.consumer_id)
        start_ms = request.start_time.ToMilliseconds() if request.HasField("start_time") else 0
        end_ms = request.end_time.ToMilliseconds() if request.HasField("end_time") else 1 << 62
        found = [
            delivery
            for delivery in reversed(self.deliveries)
            if scope.includes(delivery.consumer_id)
            and request.state in {delivery_pb2.DELIVERY_STATE_UNSPECIFIED, delivery.state}
            and request.subscription_id in {"", delivery.subscription_id}
            and request.event_id in {"", delivery.event_id}
            and request.event_type in {"", delivery.event_type}
            and start_ms <= delivery.event_time.ToMilliseconds() < end_ms
        ]
        page, token = _page("deliveries", found, request.page_size, request.page_token)
        answer = delivery_pb2.ListDeliveriesResponse(deliveries=page, next_page_token=token)
        answer.MergeFrom(self.besides)
        return answer


def new_log() -> Log:
    """Return an empty event log; methods that the gateway never calls stay unimplemented."""
    return Log()  # type: ignore[abstract]  # the generated base answers UNIMPLEMENTED for the rest


@contextlib.asynccontextmanager
async def serving_log(log: Log, token: str) -> AsyncIterator[str]:
    """Serve a log; yield its address."""
    server = Server(LOG_RULES, token)
    event_log_pb2_grpc.add_EventLogServiceServicer_to_server(log, server.grpc)
    address = await server.start("127.0.0.1:0")
    await server.set_serving(serving=True)
    yield address
    await server.stop()


@contextlib.asynccontextmanager
async def serving_ledger(ledger: Ledger, token: str) -> AsyncIterator[str]:
    """Serve a ledger; yield its address."""
    server = Server(LEDGER_RULES, token)
    delivery_pb2_grpc.add_DeliveryServiceServicer_to_server(ledger, server.grpc)
    address = await server.start("127.0.0.1:0")
    await server.set_serving(serving=True)
    yield address
    await server.stop()


def _sees(scope: Scope, audience: str) -> bool:
    return not audience or scope.includes(audience)


def _page(kind: str, found: list[_Item], asked: int, token: str) -> tuple[list[_Item], str]:
    place = parse_page_token(kind, token, (int,))
    begin = int(place[0]) if place else 0
    end = begin + page_size(asked)
    return found[begin:end], page_token(kind, (end,)) if end < len(found) else ""
