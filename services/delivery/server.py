"""Server: DeliveryService over gRPC: listings, readiness, repair, sink verification and test events."""

import asyncio
from typing import Any

import grpc
from hooktide.delivery.v1 import delivery_pb2, delivery_pb2_grpc

from services.delivery.errors import LedgerFullError
from services.delivery.listings.delivery_listings import DeliveryListings
from services.delivery.listings.wire import delivery_message, fill_attempt, listing_of, page_token_before
from services.delivery.model import State, partition_of
from services.delivery.sinks.sink_verification import SinkVerifier
from services.delivery.sinks.test_event import SinkTester
from services.delivery.worker.worker import Worker
from services.eventlog.errors import EventLogError
from services.eventlog.record import PARTITIONS
from services.runtime.errors import Failure, Reason
from services.runtime.ids import id_bytes, is_id
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
        message = delivery_message(found, self._worker.clock_jumped_ms, with_attempts=True)
        return delivery_pb2.GetDeliveryResponse(delivery=message)

    async def ListDeliveries(self, request: delivery_pb2.ListDeliveriesRequest, context: Context) -> delivery_pb2.ListDeliveriesResponse:
        """Return a page of deliveries, the newest event first."""
        del context
        page = await self._listings.page(listing_of(request))
        response = delivery_pb2.ListDeliveriesResponse(
            deliveries=[delivery_message(item, self._worker.clock_jumped_ms) for item in page.items],
            next_page_token=page_token_before(page.before_id),
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
        fill_attempt(response.attempt, 1, sent.attempt)
        return response
