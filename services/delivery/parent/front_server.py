"""Front server: DeliveryService for all workers of this machine.

gateway ─gRPC─▶ [front_server: listing_merge, ledger_fallback] ─gRPC─▶ workers

Law 1: a call about one delivery or subscription goes to the worker that owns its slot; lists come from all workers and files.
Law 2: what would change something that a missing worker owns is refused as UNAVAILABLE.
Law 3: rows of a missing worker are read from its ledger file. A list then says that it is partial, and names the worker.
"""

import asyncio
from collections.abc import Awaitable, Iterable, Sequence
from typing import Any, TypeVar, cast

import grpc
from hooktide.delivery.v1 import delivery_pb2 as pb
from hooktide.delivery.v1 import delivery_pb2_grpc

from services.delivery.ledger.protocol import Listing
from services.delivery.listings.wire import before_id_of, delivery_message, listing_of, page_token_before
from services.delivery.model import State, partition_of, slot_of_delivery
from services.delivery.parent.ledger_fallback import LedgerFallback
from services.delivery.parent.listing_merge import SourcePage, merged_page
from services.delivery.parent.workers import WorkerAwayError, WorkerLink, Workers
from services.eventlog.record import PARTITIONS
from services.runtime.consumer_scope import Scope
from services.runtime.errors import Failure, Reason
from services.runtime.ids import id_bytes, is_id, slot_of
from services.runtime.rpc.access import Access
from services.runtime.rpc.requested_scope import requested_scope

RULES = {
    f"/hooktide.delivery.v1.DeliveryService/{name}": Access.SERVICE
    for name in ("GetDelivery", "ListDeliveries", "GetReadiness", "RepairRouting", "VerifySink", "SendTestEvent")
}
_READ_S = 5.0
# As long as a test event, a sink verification or a repair may take in a worker.
_WORK_S = 75.0

Context = grpc.aio.ServicerContext[Any, Any]
_Result = TypeVar("_Result")


class FrontServer(delivery_pb2_grpc.DeliveryServiceServicer):
    """Answers for all workers."""

    def __init__(self, workers: Workers, files: LedgerFallback) -> None:
        self._workers = workers
        self._files = files

    async def GetDelivery(self, request: pb.GetDeliveryRequest, context: Context) -> pb.GetDeliveryResponse:
        """Return one delivery with its attempts: from its owner, or from any ledger that still has it."""
        del context
        scope, raw = requested_scope(request.consumer_id), b""
        if is_id(request.id, "dlv") and partition_of(id_bytes(request.id)) < PARTITIONS:
            raw = id_bytes(request.id)
            owner = self._workers.of_slot(slot_of_delivery(raw))
            try:
                answer = await self._found_by(owner, request)
            except WorkerAwayError:
                answer = await self._in_file(owner.number, scope, raw) or await self._elsewhere(owner, request, scope, raw)
                if answer is None:
                    raise _away([owner]) from None
            answer = answer or await self._elsewhere(owner, request, scope, raw)
            if answer is not None:
                return answer
        raise Failure(Reason.DELIVERY_NOT_FOUND, "There is no such delivery, or it is past its retention.")

    async def _found_by(self, worker: WorkerLink, request: pb.GetDeliveryRequest) -> pb.GetDeliveryResponse | None:
        try:
            return cast("pb.GetDeliveryResponse", await worker.ask(worker.calls.GetDelivery, request, _READ_S))
        except Failure as failure:
            if failure.reason is not Reason.DELIVERY_NOT_FOUND:
                raise
            return None

    async def _in_file(self, number: int, scope: Scope, raw: bytes) -> pb.GetDeliveryResponse | None:
        row = await self._files.find(number, scope, raw)
        return None if row is None else pb.GetDeliveryResponse(delivery=delivery_message(row, 0, with_attempts=True))

    async def _elsewhere(
        self, owner: WorkerLink, request: pb.GetDeliveryRequest, scope: Scope, raw: bytes
    ) -> pb.GetDeliveryResponse | None:
        """Look for a delivery that ended while another worker owned its slot: its row stays in that worker's file."""

        async def look(worker: WorkerLink) -> pb.GetDeliveryResponse | None:
            try:
                return await self._found_by(worker, request)
            except WorkerAwayError:
                return await self._in_file(worker.number, scope, raw)

        looks = [look(worker) for worker in self._workers if worker is not owner]
        looks += [self._in_file(number, scope, raw) for number in self._files.former()]
        return next((found for found in await _all(looks) if found is not None), None)

    async def ListDeliveries(self, request: pb.ListDeliveriesRequest, context: Context) -> pb.ListDeliveriesResponse:
        """Return a page of the deliveries of all workers, the newest event first."""
        del context
        listing, missing = listing_of(request), list[str]()
        response = pb.ListDeliveriesResponse()

        async def page_of(worker: WorkerLink) -> SourcePage:
            try:
                answer = cast("pb.ListDeliveriesResponse", await worker.ask(worker.calls.ListDeliveries, request, _READ_S))
            except WorkerAwayError:
                page = await self._page_in_file(worker.number, listing)
                if page is None or _concerns(listing, worker):
                    missing.append(worker.name)
                for state, about in (await self._files.ended_totals(worker.number, listing)).items() if page else ():
                    _add_ended(response, state, about)
                return page or SourcePage((), None)
            _add_totals(response, answer)
            return SourcePage(answer.deliveries, before_id_of(answer.next_page_token))

        async def former_page(number: int) -> SourcePage:
            page = await self._page_in_file(number, listing)
            if page is None:
                missing.append(f"former worker {number}")
            return page or SourcePage((), None)

        former = [former_page(number) for number in self._files.former()]
        pages = await _all([*former, *map(page_of, self._workers)])
        deliveries, before_id = merged_page(pages, listing.limit)
        response.deliveries.extend(deliveries)
        response.next_page_token = page_token_before(before_id)
        response.missing_workers.extend(sorted(missing))
        response.partial = response.partial or bool(missing)
        return response

    async def _page_in_file(self, number: int, listing: Listing) -> SourcePage | None:
        page = await self._files.page(number, listing)
        return None if page is None else SourcePage([delivery_message(row, 0) for row in page.rows], page.before_id)

    async def VerifySink(self, request: pb.VerifySinkRequest, context: Context) -> pb.VerifySinkResponse:
        """Let the owner of the subscription ask its sink for its consent."""
        owner = self._owner_of(request.subscription_id)
        return cast("pb.VerifySinkResponse", await _changing(owner, owner.calls.VerifySink, request, context))

    async def SendTestEvent(self, request: pb.SendTestEventRequest, context: Context) -> pb.SendTestEventResponse:
        """Let the owner of the subscription send a test event."""
        owner = self._owner_of(request.subscription_id)
        return cast("pb.SendTestEventResponse", await _changing(owner, owner.calls.SendTestEvent, request, context))

    def _owner_of(self, subscription_id: str) -> WorkerLink:
        """Return the owner of a subscription. Any worker can answer that an id of another form names none."""
        return self._workers.of_slot(slot_of(subscription_id) if is_id(subscription_id, "sub") else 0)

    async def RepairRouting(self, request: pb.RepairRoutingRequest, context: Context) -> pb.RepairRoutingResponse:
        """Resume the routing of all workers where it is stopped, or return what that would do.

        Each worker reads the log from its place to the end. So the largest number of events is the number in all.
        """
        if away := [worker for worker in self._workers if not worker.process.is_ready]:
            raise _away(away)
        calls = [_changing(worker, worker.calls.RepairRouting, request, context) for worker in self._workers]
        answers = cast("list[pb.RepairRoutingResponse]", await _all(calls))
        stopped = {worker.name: each.stopped for worker, each in zip(self._workers, answers, strict=True) if each.stopped}
        return pb.RepairRoutingResponse(
            stopped="; ".join(f"{name}: {why}" for name, why in stopped.items()),
            routed_events=max(each.routed_events for each in answers),
            repeated_events=max(each.repeated_events for each in answers),
            skipped_events=max(each.skipped_events for each in answers),
            lost_deliveries=sum(each.lost_deliveries for each in answers),
        )

    async def GetReadiness(self, request: pb.GetReadinessRequest, context: Context) -> pb.GetReadinessResponse:
        """Return which workers do not route or push all of their events, and why; empty if all do."""
        del request, context
        return pb.GetReadinessResponse(why_not_ready=self._workers.why_degraded() or "")


def _concerns(listing: Listing, worker: WorkerLink) -> bool:
    """Return whether a worker may own some of the subscriptions that a listing asks for."""
    return not is_id(listing.subscription_id, "sub") or slot_of(listing.subscription_id) in worker.slots


def _add_totals(response: pb.ListDeliveriesResponse, answer: pb.ListDeliveriesResponse) -> None:
    """Add what a worker counts to the answer for all."""
    response.partial = response.partial or answer.partial
    if answer.HasField("not_listed"):
        response.not_listed.subscriptions += answer.not_listed.subscriptions
        response.not_listed.about += answer.not_listed.about
    if answer.HasField("ended"):
        response.ended.cancelled += answer.ended.cancelled
        response.ended.exhausted += answer.ended.exhausted


def _add_ended(response: pb.ListDeliveriesResponse, state: State, about: int) -> None:
    if state is State.CANCELLED:
        response.ended.cancelled += about
    else:
        response.ended.exhausted += about


async def _changing(worker: WorkerLink, method: Any, request: Any, context: Context) -> Any:  # noqa: ANN401 - any method of the contract
    """Return a worker's answer to a call that changes something; raise `Failure` UNAVAILABLE if it cannot be reached."""
    remaining_s = context.time_remaining()
    try:
        return await worker.ask(method, request, _WORK_S if remaining_s is None else min(_WORK_S, remaining_s))
    except WorkerAwayError:
        raise _away([worker]) from None


def _away(workers: Sequence[WorkerLink]) -> Failure:
    names = ", ".join(worker.name for worker in workers)
    return Failure(Reason.UNAVAILABLE, f"{names} of the delivery service cannot be reached at the moment; try again.", retry_after_s=1.0)


async def _all(works: Iterable[Awaitable[_Result]]) -> list[_Result]:
    """Return all results; raise the first error once all have ended."""
    results = await asyncio.gather(*works, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return cast("list[_Result]", results)
