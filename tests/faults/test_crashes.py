"""Rows 1 to 4: a crash on each side of a commit, of an acknowledgement and of a flush, with one event for each case."""

from hooktide.delivery.v1 import delivery_pb2 as pb

from services.runtime.errors import Reason
from tests.faults.failpoints import arm
from tests.faults.faulty_system import Stage, refused
from tests.support.waiting import PATIENCE_S, until


async def _dies(stage: Stage, service: str) -> None:
    assert await stage.system.ended(service) == -9
    await stage.system.restart(service)


async def test_an_event_whose_commit_never_came_is_an_error_and_nothing_is_delivered(stage: Stage) -> None:
    endpoint = await stage.subscribed("crash.before.commit")
    arm(stage.told, "log.before_commit")
    failure = await refused(stage.publish("crash.before.commit", "1"))
    assert failure.reason is Reason.UNAVAILABLE
    await _dies(stage, "ingest")
    assert await stage.logged("crash.before.commit") == []
    receipt = await stage.published("crash.before.commit", "1")
    assert not receipt.duplicate
    await until(lambda: endpoint.accepted() == {receipt.event_id}, PATIENCE_S, "the event that was emitted again")
    assert len(endpoint.arrivals) == 1


async def test_an_event_that_was_kept_and_not_acknowledged_is_kept_once_when_it_is_emitted_again(stage: Stage) -> None:
    endpoint = await stage.subscribed("crash.before.ack")
    arm(stage.told, "log.after_commit")
    failure = await refused(stage.publish("crash.before.ack", "1"))
    assert failure.reason is Reason.UNAVAILABLE
    await _dies(stage, "ingest")
    receipt = await stage.published("crash.before.ack", "1")
    assert receipt.duplicate
    (record,) = await stage.logged("crash.before.ack")
    assert record.event_id == receipt.event_id
    await until(lambda: endpoint.accepted() == {receipt.event_id}, PATIENCE_S, "the event")
    assert len(endpoint.arrivals) == 1


async def test_an_event_that_was_acknowledged_and_not_routed_is_delivered_after_the_next_start(stage: Stage) -> None:
    endpoint = await stage.subscribed("crash.before.routing")
    stage.system.kill("delivery")
    receipt = await stage.published("crash.before.routing", "1")
    stage.system.kill("ingest")
    for service in ("ingest", "delivery"):
        await stage.system.restart(service)
    await until(lambda: endpoint.accepted() == {receipt.event_id}, PATIENCE_S, "the event")
    await stage.in_state("crash.before.routing", pb.DELIVERY_STATE_DELIVERED, 1)
    assert len(endpoint.arrivals) == 1


async def test_a_delivery_that_was_answered_and_not_recorded_is_made_again_with_the_same_id_and_bytes(stage: Stage) -> None:
    endpoint = await stage.subscribed("crash.before.flush")
    arm(stage.told, "delivery.answered")
    receipt = await stage.published("crash.before.flush", "1")
    await _dies(stage, "delivery")
    await until(lambda: len(endpoint.arrivals) == 2, PATIENCE_S, "the second attempt")
    await stage.in_state("crash.before.flush", pb.DELIVERY_STATE_DELIVERED, 1)
    first, second = endpoint.arrivals
    assert first.event_id == second.event_id == receipt.event_id
    assert first.body == second.body
    assert first.verified
    assert second.verified


async def test_a_delivery_is_not_sent_again_and_again_by_a_service_that_cannot_stay_up(stage: Stage) -> None:
    """A service in a crash loop sends a delivery at most once for each start."""
    endpoint = await stage.subscribed("crash.again")
    stage.system.kill("delivery")
    receipt = await stage.published("crash.again", "1")
    for _ in range(3):
        arm(stage.told, "delivery.answered")
        stage.system.launch("delivery")
        await until(lambda: not stage.system.running("delivery"), PATIENCE_S, "it dies of the answer")
        stage.system.kill("delivery")
    # The answer to another delivery may have ended a start before this delivery was sent.
    assert len(endpoint.arrivals) <= 3
    await stage.system.restart("delivery")
    await stage.in_state("crash.again", pb.DELIVERY_STATE_DELIVERED, 1)
    assert {arrival.event_id for arrival in endpoint.arrivals} == {receipt.event_id}
    assert len(endpoint.arrivals) <= 4
    assert len({arrival.body for arrival in endpoint.arrivals}) == 1
