"""Row 20: the wall clock jumps by an hour, and nothing waits for it, hurries or comes twice because of that."""

import itertools
import time

import pytest
from hooktide.delivery.v1 import delivery_pb2 as pb
from hooktide.ingest.v1 import ingest_pb2

from tests.faults.stage import Stage
from tests.system.processes import PATIENCE_S, SERVICES, until
from tests.system.receiver import Arrival, Endpoint

HOUR_S = 3600.0
# The retry delays of these tests are 0.2 s, five times, and then 0.5 s, all of them ±50 %.
_EARLIEST_S = 0.1


@pytest.mark.parametrize("jump_s", [HOUR_S, -HOUR_S], ids=["forward", "back"])
async def test_a_clock_that_jumps_moves_no_retry(own_stage: Stage, jump_s: float) -> None:
    """What waits for its next attempt makes it when it would have, routed before the jump or after, also in a process that starts later."""
    stage = own_stage
    name = f"clock.jumps.{'forward' if jump_s > 0 else 'back'}"
    endpoint = await stage.subscribed(name)
    endpoint.status = lambda: 500
    events = [await stage.publish(name, "before")]
    await until(lambda: len(endpoint.arrivals) >= 2, PATIENCE_S, "two attempts")
    alarms = stage.system.log("delivery").count("event=clock.jumped")
    for service in SERVICES:
        stage.control(service).shift_clock(jump_s)
    events.append(await stage.published(name, "after"))
    await until(lambda: stage.system.log("delivery").count("event=clock.jumped") > alarms, PATIENCE_S, "the alarm")
    await _tried_again(endpoint, events)
    stage.system.kill("delivery")
    killed_at = time.monotonic()
    await stage.system.restart("delivery")
    await _tried_again(endpoint, events)
    endpoint.status = lambda: 200
    await until(lambda: endpoint.accepted() == {each.event_id for each in events}, PATIENCE_S, "both")
    await stage.in_state(name, pb.DELIVERY_STATE_DELIVERED, 2)
    for attempts in endpoint.by_event().values():
        for earlier, later in itertools.pairwise(attempts):
            if _number(later) == _number(earlier):
                # Killed before its end was recorded, the next process makes the same attempt again.
                assert earlier.began_at < killed_at < later.began_at
            else:
                assert later.began_at - earlier.at >= _EARLIEST_S


def _number(attempt: Arrival) -> int:
    return int(attempt.headers["hooktide-attempt"])


async def _tried_again(endpoint: Endpoint, events: list[ingest_pb2.PublishReceipt]) -> None:
    """Wait for two more attempts at each event."""
    before = {event_id: len(attempts) for event_id, attempts in endpoint.by_event().items()}
    await until(
        lambda: all(len(endpoint.by_event().get(each.event_id, [])) >= before.get(each.event_id, 0) + 2 for each in events),
        PATIENCE_S,
        "two more attempts at each",
    )


async def test_ids_and_positions_grow_and_nothing_is_refused_while_the_clock_goes_back_and_forth(own_stage: Stage) -> None:
    stage = own_stage
    endpoint = await stage.subscribed("clock.wanders")
    receipts = []
    for number, shift_s in enumerate((0.0, -HOUR_S, HOUR_S, -HOUR_S, 0.0)):
        for service in SERVICES:
            stage.control(service).shift_clock(shift_s)
        receipts += [await stage.publish("clock.wanders", f"{number} {each}", partitionkey="one") for each in range(3)]
        count = len(receipts)
        await until(lambda count=count: len(endpoint.accepted()) == count, PATIENCE_S, f"the events at {shift_s} s")
    ids = [receipt.event_id for receipt in receipts]
    assert ids == sorted(ids)
    positions = [receipt.position for receipt in receipts]
    assert positions == sorted(set(positions))
    assert len(endpoint.arrivals) == len(receipts)


async def test_after_a_start_by_another_clock_everything_that_waited_goes_on(own_stage: Stage) -> None:
    stage = own_stage
    endpoint = await stage.subscribed("clock.restart")
    endpoint.status = lambda: 500
    receipt = await stage.published("clock.restart", "1")
    await until(lambda: len(endpoint.arrivals) >= 2, PATIENCE_S, "two attempts")
    stage.system.kill("delivery")
    stage.control("delivery").shift_clock(HOUR_S)
    await stage.system.restart("delivery")
    endpoint.status = lambda: 200
    await until(lambda: endpoint.accepted() == {receipt.event_id}, PATIENCE_S, "the event")
