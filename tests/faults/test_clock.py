"""Row 20: the wall clock jumps by an hour; nothing waits longer, comes earlier or comes twice because of the jump."""

import itertools
import time

import pytest
from hooktide.delivery.v1 import delivery_pb2 as pb
from hooktide.ingest.v1 import ingest_pb2
from hooktide.subscription.v1 import subscription_pb2

from tests.faults.faulty_system import FaultySystem
from tests.support.system.processes import SERVICES
from tests.support.waiting import PATIENCE_S, until
from tests.support.webhook_receivers.receiver import Arrival, Endpoint

HOUR_S = 3600.0
FAR_S = 400 * 24 * HOUR_S
# The retry delays of these tests are 0.2 s, five times, and then 0.5 s, all of them ±50 %.
_EARLIEST_S = 0.1


@pytest.mark.parametrize("jump_s", [HOUR_S, -HOUR_S], ids=["forward", "back"])
async def test_a_clock_that_jumps_moves_no_retry(own_faulty: FaultySystem, jump_s: float) -> None:
    """Retries keep their times, whether their events were routed before or after the jump, also in a process that starts later."""
    faulty = own_faulty
    name = f"clock.jumps.{'forward' if jump_s > 0 else 'back'}"
    endpoint = await faulty.subscribed(name)
    endpoint.status = lambda: 500
    events = [await faulty.publish(name, "before")]
    await until(lambda: len(endpoint.arrivals) >= 2, PATIENCE_S, "two attempts")
    alarms = faulty.system.log("delivery").count("event=clock.jumped")
    for service in SERVICES:
        faulty.control(service).shift_clock(jump_s)
    events.append(await faulty.published(name, "after"))
    await until(lambda: faulty.system.log("delivery").count("event=clock.jumped") > alarms, PATIENCE_S, "the alarm")
    await _tried_again(endpoint, events)
    faulty.system.kill("delivery")
    killed_at = time.monotonic()
    await faulty.system.restart("delivery")
    await _tried_again(endpoint, events)
    endpoint.status = lambda: 200
    await until(lambda: endpoint.accepted() == {each.event_id for each in events}, PATIENCE_S, "both")
    await faulty.in_state(name, pb.DELIVERY_STATE_DELIVERED, 2)
    for attempts in endpoint.by_event().values():
        for earlier, later in itertools.pairwise(attempts):
            if _number(later) == _number(earlier):
                # The old process was killed before it recorded this attempt, so the next process repeats it.
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


async def test_ids_and_positions_grow_and_nothing_is_refused_while_the_clock_goes_back_and_forth(own_faulty: FaultySystem) -> None:
    faulty = own_faulty
    endpoint = await faulty.subscribed("clock.wanders")
    receipts = []
    for number, shift_s in enumerate((0.0, -HOUR_S, HOUR_S, -HOUR_S, 0.0)):
        for service in SERVICES:
            faulty.control(service).shift_clock(shift_s)
        receipts += [await faulty.publish("clock.wanders", f"{number} {each}", partitionkey="one") for each in range(3)]
        count = len(receipts)
        await until(lambda count=count: len(endpoint.accepted()) == count, PATIENCE_S, f"the events at {shift_s} s")
    ids = [receipt.event_id for receipt in receipts]
    assert ids == sorted(ids)
    positions = [receipt.position for receipt in receipts]
    assert positions == sorted(set(positions))
    assert len(endpoint.arrivals) == len(receipts)


async def test_after_a_start_by_another_clock_everything_that_waited_goes_on(own_faulty: FaultySystem) -> None:
    faulty = own_faulty
    endpoint = await faulty.subscribed("clock.restart")
    endpoint.status = lambda: 500
    receipt = await faulty.published("clock.restart", "1")
    await until(lambda: len(endpoint.arrivals) >= 2, PATIENCE_S, "two attempts")
    faulty.system.kill("delivery")
    faulty.control("delivery").shift_clock(HOUR_S)
    await faulty.system.restart("delivery")
    endpoint.status = lambda: 200
    await until(lambda: endpoint.accepted() == {receipt.event_id}, PATIENCE_S, "the event")


async def test_a_clock_far_ahead_for_a_while_ends_and_drops_nothing(own_faulty: FaultySystem) -> None:
    """A clock that is 400 days ahead ends no waiting delivery, and drops no finished delivery, event, secret or answer for idempotency."""
    faulty, consumer = own_faulty, own_faulty.consumer
    arriving, waiting = await faulty.subscribed("clock.arrives"), faulty.receiver.endpoint("clock.waits")
    subscription_id = await consumer.subscribe(waiting, ["clock.waits"])
    waiting.status = lambda: 500
    arrived = await faulty.publish("clock.arrives", "1")
    await faulty.in_state("clock.arrives", pb.DELIVERY_STATE_DELIVERED, 1)
    await faulty.released(arrived.position)
    waits = await faulty.publish("clock.waits", "1")
    await until(lambda: waiting.arrivals, PATIENCE_S, "an attempt")
    await _rotated(faulty, subscription_id)
    for service in SERVICES:
        faulty.control(service).shift_clock(FAR_S)
    await until(lambda: "event=clock.jumped" in faulty.system.log("delivery"), PATIENCE_S, "the alarm")
    # These attempts take longer than the interval of housekeeping.
    seen = len(waiting.arrivals)
    await until(lambda: len(waiting.arrivals) >= seen + 4, PATIENCE_S, "attempts meanwhile")
    await _rotated(faulty, subscription_id)
    between = await faulty.publish("clock.arrives", "2")
    for service in SERVICES:
        faulty.control(service).shift_clock(0.0)
    seen = len(waiting.arrivals)
    await until(lambda: len(waiting.arrivals) >= seen + 4, PATIENCE_S, "attempts afterwards")
    await faulty.in_state("clock.waits", pb.DELIVERY_STATE_PENDING, 1)
    waiting.status = lambda: 200
    await faulty.in_state("clock.waits", pb.DELIVERY_STATE_DELIVERED, 1)
    await faulty.in_state("clock.arrives", pb.DELIVERY_STATE_DELIVERED, 2)
    assert [each.event_id for each in await faulty.logged("clock.arrives")] == [between.event_id, arrived.event_id]
    assert all(abs(each.accepted_unix_ms / 1000 - time.time()) < HOUR_S for each in await faulty.logged("clock.arrives"))
    again = await faulty.publish("clock.arrives", "1")
    assert (again.event_id, again.duplicate) == (arrived.event_id, True)
    assert waits.event_id in waiting.accepted()
    assert await _live_secrets(faulty, subscription_id) == 3
    assert await consumer.subscribe(waiting, ["clock.waits"]) == subscription_id
    assert arriving.accepted() == {arrived.event_id, between.event_id}


async def _rotated(faulty: FaultySystem, subscription_id: str) -> None:
    """Rotate the secret; the previous secret stays valid for an hour."""
    path, consumer = f"/v1/subscriptions/{subscription_id}/secret/rotate", faulty.consumer
    status, answer = await faulty.system.call("POST", path, consumer.key, {"overlap_seconds": int(HOUR_S)})
    assert status == 200, answer


async def _live_secrets(faulty: FaultySystem, subscription_id: str) -> int:
    """Return how many secrets are valid."""
    request = subscription_pb2.GetSecretsRequest(consumer_id="*", subscription_id=subscription_id)
    return len((await faulty.system.subscriptions.GetSecrets(request, metadata=faulty.system.metadata)).secrets)
