"""End checks: what must be true of a world once everything works again: each event has its end, and the worker is at rest."""

import asyncio

from services.delivery.ledger.rows import EndedRow
from services.delivery.model import State, delivery_id
from services.runtime.ids import id_text
from tests.simulation.endpoints import Key
from tests.simulation.invariants import Version, judged
from tests.simulation.registry import ACTIVE, DISABLED
from tests.simulation.tiny_settings import DELAYS_S
from tests.simulation.world import World


def check_end(world: World) -> None:
    """Check what became of every event."""
    world.check()
    ended = {id_: world.store.ended(id_) for id_ in world.versions}
    for telling in world.telling:
        if telling.done():
            telling.result()
    done = world.store.ends()
    states = {delivery: state for delivery, state, _ in done}
    assert len(states) == len(done), "I1: a delivery has two ends"
    wanted: set[bytes] = set()
    set_aside = world.store.set_aside()
    for each in world.published:
        for subscription_id, versions in world.versions.items():
            key = delivery_id(each.record.event_id, subscription_id)
            must, may = judged(each, versions, subscription_id)
            assert may or key not in states, f"I6: {each.record.event_id} was routed to {subscription_id}"
            is_ended = any(row.after[0] < each.record.position <= row.through[0] for row in ended[subscription_id])
            assert not (is_ended and key in states), f"L1: {each.record.event_id} has ended twice for {subscription_id}"
            reaches_end = key in states or is_ended or each.record.event_id in set_aside
            assert not must or reaches_end, f"I1: {each.record.event_id} was not routed to {subscription_id}"
            if key in states:
                wanted.add(key)
                _check_state(world, (each.record.event_id, subscription_id), states[key], versions)
    assert wanted == set(states), "I6: there are deliveries of nothing"


async def check_rest(world: World, after_s: float = 60.0, watch_s: float = 180.0) -> None:
    """Check that an idle worker holds no deliveries after a while, and then leaves the ledger alone for `watch_s`."""
    await asyncio.sleep(after_s)
    dispatcher, jobs_before = world.at_work().worker.dispatcher, world.loop.jobs_done
    held = (dispatcher.attempts.in_flight, dispatcher.lanes.held_bytes, dispatcher.lanes.unrecorded_sent)
    assert held == (0, 0, 0), f"attempts in flight, bytes held, and attempts not recorded of an idle worker: {held}"
    for lane in dispatcher.lanes:
        assert not lane.queue, f"{lane.subscription_id} has a queue and no delivery"
        kept = (len(lane.held), lane.in_flight, lane.unflushed_spills)
        assert kept == (0, 0, 0), f"deliveries held, in flight and unflushed of the idle lane of {lane.subscription_id}: {kept}"
        assert lane.subscription_id in world.registry.wishes, f"the lane of {lane.subscription_id} outlives it"
        if lane.sink_health is not None and not lane.sink_health.permits(world.loop.time()):
            continue  # the lane looks for waiting rows when it may send again
        is_active = world.registry.wishes[lane.subscription_id].state == ACTIVE
        assert lane.next_due_ms is None or not is_active, f"the lane of {lane.subscription_id} leaves a row that is due"
    await asyncio.sleep(watch_s)
    # Housekeeping runs a few times during this wait.
    assert world.loop.jobs_done - jobs_before < 100, "the ledger is kept busy for nothing"
    _check_notices(world)


def _check_notices(world: World) -> None:
    """Check that there is a notice of each exhausted delivery, and of no other."""
    exhausted = sorted(id_text("dlv", key) for key, state in world.states().items() if state is State.EXHAUSTED)
    told = world.notices.exhausted()
    assert told == exhausted, f"told as exhausted: {told}, and {exhausted} are"


def _check_reason(event_id: str, row: EndedRow, versions: list[Version]) -> None:
    """Check why a delivery has ended without a row. No run is longer than the log's retention, but a start may ask for dropped events."""
    if row.reason is State.EXHAUSTED:
        first = versions[0].wish
        assert first is not None
        assert first.start_ms is not None, f"{event_id} was given up for {row.subscription_id}, and the log still keeps it"
    else:
        was_off = any(version.wish is None or version.wish.state == DISABLED for version in versions)
        assert was_off, f"{event_id} was cancelled for {row.subscription_id}, which was never off"


def _check_state(world: World, key: Key, state: State, versions: list[Version]) -> None:
    was_off = any(version.wish is None or version.wish.state == DISABLED for version in versions)
    successes = world.endpoints.sent[key].successes if key in world.endpoints.sent else 0
    assert state is not State.CANCELLED or was_off, f"{key} was cancelled, and its subscription was never off"
    attempts = world.endpoints.sent[key].attempts if key in world.endpoints.sent else 0
    assert state is not State.EXHAUSTED or attempts > len(DELAYS_S), f"{key} was given up after {attempts} attempts"
    assert state is not State.DELIVERED or successes, f"{key} is called delivered, and no endpoint has taken it"
    assert successes <= 1 + world.crashes, f"{key} was taken {successes} times in {world.crashes} crashes"
    if state is State.EXHAUSTED:
        assert world.endpoints.sent[key].attempts == len(DELAYS_S) + 1, f"{key} was given up early"
