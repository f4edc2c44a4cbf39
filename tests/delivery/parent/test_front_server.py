"""The front server before workers that answer what a test gives them, over real sockets."""

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from hooktide.delivery.v1 import delivery_pb2 as pb
from hooktide.delivery.v1 import delivery_pb2_grpc

from services.delivery.ledger.protocol import Flush
from services.delivery.ledger.rows import EndedRow
from services.delivery.ledger.sqlite.ledger import open_ledger
from services.delivery.ledger.sqlite.ledger_reader import open_ledger_reader
from services.delivery.model import State
from services.delivery.parent.front_server import RULES, FrontServer
from services.delivery.parent.ledger_fallback import LedgerFallback
from services.delivery.parent.worker_process import WorkerProcess
from services.delivery.parent.workers import WorkerLink, Workers
from services.delivery.worker_seats import worker_socket
from services.runtime.errors import Failure, Reason
from services.runtime.ids import new_subscription_id
from services.runtime.rpc.channel_and_server import Server, open_channel, service_metadata
from services.runtime.service_process import WorkerSeat
from tests.support.system.registry import TOKEN, refused

DELIVERIES = [f"dlv_{time:012x}{0x8000_0000_0000_0000_0000:020x}" for time in (3, 2, 1)]


@dataclass
class Answers(delivery_pb2_grpc.DeliveryServiceServicer):
    """A worker that answers as it is told."""

    answer: Callable[[Any], Any] = lambda _request: Failure(Reason.DELIVERY_NOT_FOUND, "none")
    asked: list[Any] = field(default_factory=list)

    async def _answered(self, request: Any, _context: Any) -> Any:
        self.asked.append(request)
        answer = self.answer(request)
        if isinstance(answer, Failure):
            raise answer
        return answer

    GetDelivery = ListDeliveries = VerifySink = SendTestEvent = RepairRouting = GetReadiness = _answered  # type: ignore[assignment]  # all methods


class RunningProcess(WorkerProcess):
    """The process of a worker that runs in the test's own process."""

    is_ready = True


@dataclass
class World:
    """The front with its workers."""

    workers: list[Answers]
    links: Workers
    call: Callable[[str, Any], Any]

    def lose(self, number: int) -> None:
        """Let a worker be away."""
        self.links[number].process.is_ready = False


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with contextlib.AsyncExitStack() as stack:
        workers, links = [Answers(), Answers()], []
        for number, worker in enumerate(workers):
            seat = WorkerSeat(number, tmp_path)
            server = Server(RULES, TOKEN)
            delivery_pb2_grpc.add_DeliveryServiceServicer_to_server(worker, server.grpc)
            await server.start(worker_socket(seat))
            stack.push_async_callback(server.stop, 0)
            channel = await stack.enter_async_context(open_channel(worker_socket(seat)))
            links.append(WorkerLink(RunningProcess(seat, 2, 0), 2, channel, TOKEN))
            stack.push_async_callback(links[-1].admin.close)
        front = Server(RULES, TOKEN)
        files = LedgerFallback(tmp_path / "delivery.db", 2, open_ledger_reader)
        delivery_pb2_grpc.add_DeliveryServiceServicer_to_server(FrontServer(Workers(links), files), front.grpc)
        channel = await stack.enter_async_context(open_channel(await front.start("127.0.0.1:0")))
        stack.push_async_callback(front.stop, 0)
        stub = delivery_pb2_grpc.DeliveryServiceStub(channel)

        async def call(method: str, request: Any) -> Any:
            return await getattr(stub, method)(request, metadata=service_metadata(TOKEN), timeout=60)

        yield World(workers, Workers(links), call)


def _always(answer: Any, _request: Any) -> Any:
    return answer


def pages(deliveries: list[str], **more: Any) -> Callable[[Any], pb.ListDeliveriesResponse]:
    return lambda _request: pb.ListDeliveriesResponse(deliveries=[pb.Delivery(id=each) for each in deliveries], **more)


async def test_a_list_holds_what_all_workers_have_and_adds_what_they_count(world: World) -> None:
    counted = {"not_listed": pb.NotListed(subscriptions=1, about=5), "ended": pb.EndedInLog(exhausted=2)}
    world.workers[0].answer = pages([DELIVERIES[1]], **counted)
    world.workers[1].answer = pages([DELIVERIES[0], DELIVERIES[2]], partial=True, **counted)
    page = await world.call("ListDeliveries", pb.ListDeliveriesRequest(consumer_id="*"))
    assert [each.id for each in page.deliveries] == DELIVERIES
    assert (page.not_listed, page.ended) == (pb.NotListed(subscriptions=2, about=10), pb.EndedInLog(exhausted=4))
    assert (page.partial, list(page.missing_workers), page.next_page_token) == (True, [], "")


async def test_a_worker_whose_ledger_cannot_be_read_is_named_whatever_is_asked(world: World) -> None:
    world.workers[0].answer = pages(DELIVERIES)
    world.lose(1)
    request = pb.ListDeliveriesRequest(consumer_id="*", subscription_id=new_subscription_id(0))
    page = await world.call("ListDeliveries", request)
    assert ([each.id for each in page.deliveries], page.partial, list(page.missing_workers)) == (DELIVERIES, True, ["worker 1"])


@pytest.mark.parametrize(
    ("state", "event_id", "ended"),
    [
        (pb.DELIVERY_STATE_UNSPECIFIED, "", pb.EndedInLog(cancelled=3, exhausted=4)),
        (pb.DELIVERY_STATE_EXHAUSTED, "", pb.EndedInLog(exhausted=4)),
        (pb.DELIVERY_STATE_DELIVERED, "", pb.EndedInLog()),
        (pb.DELIVERY_STATE_PENDING, "", pb.EndedInLog()),
        (pb.DELIVERY_STATE_UNSPECIFIED, "evt_" + "0" * 32, pb.EndedInLog()),
    ],
)
async def test_deliveries_of_a_missing_worker_that_ended_without_rows_are_counted_from_its_file(
    world: World, tmp_path: Path, state: Any, event_id: str, ended: pb.EndedInLog
) -> None:
    world.workers[0].answer = pages([])
    async with open_ledger(tmp_path / "delivery-1.db") as ledger:
        await ledger.take_lease("one")
        states = {State.CANCELLED: 3, State.EXHAUSTED: 4}
        await ledger.flush(Flush(ended=[EndedRow("sub_" + "f" * 32, "", each, (0,), (9,), about, 1) for each, about in states.items()]))
    world.lose(1)
    page = await world.call("ListDeliveries", pb.ListDeliveriesRequest(consumer_id="*", state=state, event_id=event_id))
    assert (page.ended, list(page.missing_workers)) == (ended, ["worker 1"])


async def test_a_former_worker_whose_ledger_cannot_be_read_is_named(world: World, tmp_path: Path) -> None:
    for worker in world.workers:
        worker.answer = pages([])
    (tmp_path / "delivery-5.db").write_text("no database, although it has the name of one")
    page = await world.call("ListDeliveries", pb.ListDeliveriesRequest(consumer_id="*"))
    assert (page.partial, list(page.missing_workers)) == (True, ["former worker 5"])


@pytest.mark.parametrize(("slot", "owner"), [(0, 0), (127, 0), (128, 1), (255, 1)])
async def test_a_call_about_a_subscription_goes_to_its_owner_alone(world: World, slot: int, owner: int) -> None:
    for worker in world.workers:
        worker.answer = lambda _request: pb.SendTestEventResponse(event_id="evt_1")
    request = pb.SendTestEventRequest(consumer_id="*", subscription_id=new_subscription_id(slot))
    assert (await world.call("SendTestEvent", request)).event_id == "evt_1"
    assert [len(worker.asked) for worker in world.workers] == [1 - owner, owner]
    world.lose(owner)
    failure = await refused(world.call("SendTestEvent", request))
    assert (failure.reason, failure.message.split(" of ")[0]) == (Reason.UNAVAILABLE, f"worker {owner}")
    failure = await refused(world.call("VerifySink", pb.VerifySinkRequest(consumer_id="*", subscription_id=request.subscription_id)))
    assert failure.reason is Reason.UNAVAILABLE


async def test_a_refusal_by_a_worker_is_passed_on_and_the_worker_is_not_missing(world: World) -> None:
    world.workers[0].answer = lambda _request: Failure(Reason.UNAVAILABLE, "The event log cannot be read.", retry_after_s=1.0)
    failure = await refused(world.call("GetDelivery", pb.GetDeliveryRequest(consumer_id="*", id=DELIVERIES[0])))
    assert (failure.reason, failure.message) == (Reason.UNAVAILABLE, "The event log cannot be read.")
    failure = await refused(world.call("ListDeliveries", pb.ListDeliveriesRequest(consumer_id="*")))
    assert failure.message == "The event log cannot be read."


async def test_a_delivery_that_ended_under_another_owner_is_found_there(world: World) -> None:
    found = pb.GetDeliveryResponse(delivery=pb.Delivery(id=DELIVERIES[0]))
    world.workers[1].answer = lambda _request: found
    request = pb.GetDeliveryRequest(consumer_id="*", id=DELIVERIES[0])
    assert await world.call("GetDelivery", request) == found
    world.workers[1].answer = Answers().answer
    assert (await refused(world.call("GetDelivery", request))).reason is Reason.DELIVERY_NOT_FOUND
    world.lose(0)
    failure = await refused(world.call("GetDelivery", request))
    assert (failure.reason, failure.message.split(" of ")[0]) == (Reason.UNAVAILABLE, "worker 0")


async def test_a_repair_repairs_all_workers_or_none(world: World) -> None:
    for number, worker in enumerate(world.workers):
        repaired = pb.RepairRoutingResponse(stopped="another log", routed_events=10 + number, repeated_events=number, lost_deliveries=2)
        worker.answer = partial(_always, repaired)
    done = await world.call("RepairRouting", pb.RepairRoutingRequest())
    assert done.stopped == "worker 0: another log; worker 1: another log"
    assert (done.routed_events, done.repeated_events, done.lost_deliveries) == (11, 1, 4)
    world.lose(1)
    asked = len(world.workers[0].asked)
    failure = await refused(world.call("RepairRouting", pb.RepairRoutingRequest()))
    assert (failure.reason, failure.message.split(" of ")[0]) == (Reason.UNAVAILABLE, "worker 1")
    assert len(world.workers[0].asked) == asked


async def test_a_wrong_request_is_refused_before_any_worker_gets_it(world: World) -> None:
    for request, reason in (
        (pb.ListDeliveriesRequest(), Reason.INVALID_ARGUMENT),
        (pb.ListDeliveriesRequest(consumer_id="*", page_token="x"), Reason.PAGE_TOKEN_INVALID),
    ):
        assert (await refused(world.call("ListDeliveries", request))).reason is reason
    assert not any(worker.asked for worker in world.workers)
    assert grpc.StatusCode.NOT_FOUND is Reason.DELIVERY_NOT_FOUND.code
