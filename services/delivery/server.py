"""Server: DeliveryService over gRPC: listings, readiness, repair, sink verification and test events."""

import asyncio
from typing import Any

import grpc
from hooktide.delivery.v1 import delivery_pb2, delivery_pb2_grpc

from services.delivery.errors import LedgerFullError
from services.delivery.ledger.protocol import Listing
from services.delivery.ledger.rows import DoneRow, OpenRow, decode_attempts
from services.delivery.listings.delivery_listings import DeliveryListings
from services.delivery.listings.rowless import Item, Rowless
from services.delivery.model import Attempt, State, partition_of
from services.delivery.sinks.sink_verification import SinkVerifier
from services.delivery.sinks.test_event import SinkTester
from services.delivery.worker.worker import Worker
from services.eventlog.errors import EventLogError
from services.eventlog.record import PARTITIONS
from services.runtime.errors import Failure, Reason, invalid_field
from services.runtime.ids import id_bytes, id_text, is_id
from services.runtime.paging import page_size, page_token, parse_page_token
from services.runtime.rpc.access import Access
from services.runtime.rpc.requested_scope import requested_scope
from services.runtime.rpc.timestamps import optional_ms

RULES = {
    f"/hooktide.delivery.v1.DeliveryService/{name}": Access.SERVICE
    for name in ("GetDelivery", "ListDeliveries", "GetReadiness", "RepairRouting", "VerifySink", "SendTestEvent")
}
# Retention releases and trims nothing during a repair. The count of a large log's events takes most of the time.
_REPAIR_S = 60.0

Context = grpc.aio.ServicerContext[Any, Any]


class DeliveryServer(delivery_pb2_grpc.DeliveryServiceServicer):
    """Answers the services that read deliveries, verify or test a sink, ask for readiness, or repair routing."""

    def __init__(self, listings: DeliveryListings, verifier: SinkVerifier, sink_tester: SinkTester, worker: Worker) -> None:
        self._listings = listings
        self._verifier = verifier
        self._sink_tester = sink_tester
        self._worker = worker

    async def GetDelivery(self, request: delivery_pb2.GetDeliveryRequest, context: Context) -> delivery_pb2.GetDeliveryResponse:
        """Return one delivery with its attempts."""
        del context
        scope = requested_scope(request.consumer_id)
        known = is_id(request.id, "dlv") and partition_of(id_bytes(request.id)) < PARTITIONS
        found = await self._listings.find(scope, id_bytes(request.id)) if known else None
        if found is None:
            raise Failure(Reason.DELIVERY_NOT_FOUND, "There is no such delivery, or it is past its retention.")
        message = _message(found, self._worker.clock_jumped_ms)
        attempts = () if isinstance(found, Rowless) else decode_attempts(found.attempts)
        for number, attempt in enumerate(attempts, 1):
            _fill(message.attempts.add(), number, attempt)
        return delivery_pb2.GetDeliveryResponse(delivery=message)

    async def ListDeliveries(self, request: delivery_pb2.ListDeliveriesRequest, context: Context) -> delivery_pb2.ListDeliveriesResponse:
        """Return a page of deliveries, the newest event first."""
        del context
        scope = requested_scope(request.consumer_id)
        place = parse_page_token("deliveries", request.page_token, (str,))
        if request.state not in delivery_pb2.DeliveryState.values():
            raise invalid_field("state", "is not a state of a delivery")
        listing = Listing(
            before_id=None if place is None else _id_of(str(place[0])),
            limit=page_size(request.page_size),
            scope=scope,
            state=State(request.state) if request.state else None,
            subscription_id=request.subscription_id,
            event_id=request.event_id,
            event_type=request.event_type,
            start_ms=optional_ms(request, "start_time"),
            end_ms=optional_ms(request, "end_time"),
        )
        page = await self._listings.page(listing)
        response = delivery_pb2.ListDeliveriesResponse(
            deliveries=[_message(item, self._worker.clock_jumped_ms) for item in page.items],
            next_page_token="" if page.before_id is None else page_token("deliveries", (page.before_id.hex(),)),
            partial=page.partial,
        )
        if page.not_listed.subscriptions:
            response.not_listed.subscriptions, response.not_listed.about = page.not_listed
        if page.ended:
            response.ended.cancelled, response.ended.exhausted = (page.ended.get(each, 0) for each in (State.CANCELLED, State.EXHAUSTED))
        return response

    async def GetReadiness(self, request: delivery_pb2.GetReadinessRequest, context: Context) -> delivery_pb2.GetReadinessResponse:
        """Return why events are not routed or pushed; empty if they are."""
        del request, context
        return delivery_pb2.GetReadinessResponse(why_not_ready=self._worker.why_not_ready() or self._worker.why_degraded() or "")

    async def RepairRouting(self, request: delivery_pb2.RepairRoutingRequest, context: Context) -> delivery_pb2.RepairRoutingResponse:
        """Resume routing that is stopped, or return what a repair would do."""
        del context
        from_ms = optional_ms(request, "from_time")
        if self._worker.repair is None:
            raise Failure(Reason.UNAVAILABLE, "The delivery service is starting; try again.", retry_after_s=1.0)
        try:
            async with asyncio.timeout(_REPAIR_S):
                repaired = await self._worker.repair.run(from_ms, dry_run=request.dry_run)
        except TimeoutError as error:
            raise Failure(Reason.DEADLINE_EXCEEDED, "The log or the ledger did not answer in time; start the repair again.") from error
        except EventLogError as error:
            raise Failure(
                Reason.UNAVAILABLE, "The event log cannot be read; check that the ingest service is running.", retry_after_s=1.0
            ) from error
        except LedgerFullError as error:
            raise Failure(
                Reason.STORAGE_FULL, "The ledger's disk is full, and nothing was changed; free some space and try again.", retry_after_s=5.0
            ) from error
        return delivery_pb2.RepairRoutingResponse(
            stopped=repaired.stopped,
            routed_events=repaired.routed,
            repeated_events=repaired.repeated,
            skipped_events=repaired.skipped,
            lost_deliveries=repaired.lost,
        )

    async def VerifySink(self, request: delivery_pb2.VerifySinkRequest, context: Context) -> delivery_pb2.VerifySinkResponse:
        """Ask a sink for its consent and report the answer to the registry."""
        del context
        await self._verifier.verify(requested_scope(request.consumer_id), request.subscription_id)
        return delivery_pb2.VerifySinkResponse()

    async def SendTestEvent(self, request: delivery_pb2.SendTestEventRequest, context: Context) -> delivery_pb2.SendTestEventResponse:
        """Send a test event and return its attempt."""
        del context
        sent = await self._sink_tester.send(requested_scope(request.consumer_id), request.subscription_id)
        response = delivery_pb2.SendTestEventResponse(event_id=sent.event_id)
        _fill(response.attempt, 1, sent.attempt)
        return response


def _fill(message: delivery_pb2.Attempt, number: int, attempt: Attempt) -> None:
    message.number, message.outcome, message.status = number, delivery_pb2.AttemptOutcome.ValueType(attempt.outcome), attempt.status
    message.error, message.response_body = attempt.error, attempt.body
    message.start_time.FromMilliseconds(attempt.started_ms)
    message.duration.FromMilliseconds(attempt.duration_ms)


def _id_of(text: str) -> bytes:
    """Return the id in a page token."""
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise Failure(
            Reason.PAGE_TOKEN_INVALID, "This list did not return this page token; leave it out to begin at the first page."
        ) from None


def _message(item: Item, clock_jumped_ms: int) -> delivery_pb2.Delivery:
    return _rowless_message(item) if isinstance(item, Rowless) else _row_message(item, clock_jumped_ms)


def _rowless_message(item: Rowless) -> delivery_pb2.Delivery:
    message = delivery_pb2.Delivery(
        id=id_text("dlv", item.id),
        event_id=item.event_id,
        subscription_id=item.subscription_id,
        consumer_id=item.consumer_id,
        event_type=item.event_type,
        state=delivery_pb2.DeliveryState.ValueType(item.state),
        partition=item.partition,
        position=item.position,
        waiting=item.state is State.PENDING,
    )
    message.event_time.FromMilliseconds(item.accepted_ms)
    if item.time_ms is not None:
        (message.expire_time if message.waiting else message.finish_time).FromMilliseconds(item.time_ms)
    return message


def _row_message(row: OpenRow | DoneRow, clock_jumped_ms: int) -> delivery_pb2.Delivery:
    state = State.PENDING if isinstance(row, OpenRow) else State(row.state)
    message = delivery_pb2.Delivery(
        id=id_text("dlv", row.id),
        event_id=row.event_id,
        subscription_id=row.subscription_id,
        consumer_id=row.consumer_id,
        event_type=row.event_type,
        state=delivery_pb2.DeliveryState.ValueType(state),
        attempt_count=row.attempt_count,
        last_status=row.last_status,
        partition=row.partition,
        position=row.position,
    )
    message.event_time.FromMilliseconds(row.accepted_ms)
    if isinstance(row, OpenRow):
        if row.due_ms:
            message.next_attempt_time.FromMilliseconds(row.due_ms + clock_jumped_ms)
    else:
        message.finish_time.FromMilliseconds(row.finished_ms)
    return message
