"""Rows 1 to 4: a crash on each side of a commit, of an acknowledgement and of a flush, with one event for each case."""

from hooktide.delivery.v1 import delivery_pb2 as pb

from services.runtime.errors import Reason
from tests.faults.failpoints import arm
from tests.faults.faulty_system import FaultySystem, refused
from tests.support.waiting import PATIENCE_S, until


async def _dies(faulty: FaultySystem, service: str) -> None:
    assert await faulty.system.ended(service) == -9
    await faulty.system.restart(service)


async def test_an_event_whose_commit_never_came_is_an_error_and_nothing_is_delivered(faulty: FaultySystem) -> None:
    endpoint = await faulty.subscribed("crash.before.commit")
    arm(faulty.told, "log.before_commit")
    failure = await refused(faulty.publish("crash.before.commit", "1"))
    assert failure.reason is Reason.UNAVAILABLE
    await _dies(faulty, "ingest")
    assert await faulty.logged("crash.before.commit") == []
    receipt = await faulty.published("crash.before.commit", "1")
    assert not receipt.duplicate
    await until(lambda: endpoint.accepted() == {receipt.event_id}, PATIENCE_S, "the event that was emitted again")
    assert len(endpoint.arrivals) == 1


async def test_an_event_that_was_kept_and_not_acknowledged_is_kept_once_when_it_is_emitted_again(faulty: FaultySystem) -> None:
    endpoint = await faulty.subscribed("crash.before.ack")
    arm(faulty.told, "log.after_commit")
    failure = await refused(faulty.publish("crash.before.ack", "1"))
    assert failure.reason is Reason.UNAVAILABLE
    await _dies(faulty, "ingest")
    receipt = await faulty.published("crash.before.ack", "1")
    assert receipt.duplicate
    (record,) = await faulty.logged("crash.before.ack")
    assert record.event_id == receipt.event_id
    await until(lambda: endpoint.accepted() == {receipt.event_id}, PATIENCE_S, "the event")
    assert len(endpoint.arrivals) == 1


async def test_an_event_that_was_acknowledged_and_not_routed_is_delivered_after_the_next_start(faulty: FaultySystem) -> None:
    endpoint = await faulty.subscribed("crash.before.routing")
    faulty.system.kill("delivery")
    receipt = await faulty.published("crash.before.routing", "1")
    faulty.system.kill("ingest")
    for service in ("ingest", "delivery"):
        await faulty.system.restart(service)
    await until(lambda: endpoint.accepted() == {receipt.event_id}, PATIENCE_S, "the event")
    await faulty.in_state("crash.before.routing", pb.DELIVERY_STATE_DELIVERED, 1)
    assert len(endpoint.arrivals) == 1


async def test_a_delivery_that_was_answered_and_not_recorded_is_made_again_with_the_same_id_and_bytes(faulty: FaultySystem) -> None:
    endpoint = await faulty.subscribed("crash.before.flush")
    arm(faulty.told, "delivery.answered")
    receipt = await faulty.published("crash.before.flush", "1")
    await _dies(faulty, "delivery")
    await until(lambda: len(endpoint.arrivals) == 2, PATIENCE_S, "the second attempt")
    await faulty.in_state("crash.before.flush", pb.DELIVERY_STATE_DELIVERED, 1)
    first, second = endpoint.arrivals
    assert first.event_id == second.event_id == receipt.event_id
    assert first.body == second.body
    assert first.verified
    assert second.verified


async def test_a_delivery_is_not_sent_again_and_again_by_a_service_that_cannot_stay_up(faulty: FaultySystem) -> None:
    """A service in a crash loop sends a delivery at most once for each start."""
    endpoint = await faulty.subscribed("crash.again")
    faulty.system.kill("delivery")
    receipt = await faulty.published("crash.again", "1")
    for _ in range(3):
        arm(faulty.told, "delivery.answered")
        faulty.system.launch("delivery")
        await until(lambda: not faulty.system.running("delivery"), PATIENCE_S, "it dies of the answer")
        faulty.system.kill("delivery")
    # The answer to another delivery may have ended a start before this delivery was sent.
    assert len(endpoint.arrivals) <= 3
    await faulty.system.restart("delivery")
    await faulty.in_state("crash.again", pb.DELIVERY_STATE_DELIVERED, 1)
    assert {arrival.event_id for arrival in endpoint.arrivals} == {receipt.event_id}
    assert len(endpoint.arrivals) <= 4
    assert len({arrival.body for arrival in endpoint.arrivals}) == 1
