"""Lane modes in virtual time: a lane that is behind joins again, and events that always fail hold up no others."""

import asyncio
from dataclasses import replace

from services.delivery.model import State
from services.delivery.worker.backpressure import LIMIT_MAX
from services.eventlog.record import Record
from tests.delivery.conftest import Play
from tests.simulation.registry import ACTIVE, PAUSED
from tests.simulation.scenarios import ALPHA, deliveries, finished, started
from tests.simulation.world import World


def test_at_nine_tenths_of_its_rate_a_lane_becomes_live_in_bounded_time_and_stays_live(play: Play) -> None:
    """More events arrive in a second than may be left of its range when it joins."""
    limited = replace(ALPHA, rate_per_second=100.0)

    async def scenario(world: World) -> None:
        await started(world, replace(limited, state=PAUSED))
        records = world.publish(100, "alpha")
        await asyncio.sleep(1.0)
        assert world.store.ranges()
        world.change(limited)
        live_after_s, seconds = [], 0.0
        while seconds < 60.0:
            records += world.publish(9, "alpha")
            await asyncio.sleep(0.1)
            seconds += 0.1
            live_after_s += [] if world.store.ranges() else [seconds]
        assert live_after_s[0] < 30.0
        assert len([each for each in live_after_s if each > 40.0]) > 180
        await finished(world)
        assert deliveries(world, records) == [State.DELIVERED] * len(records)

    play(scenario, HOOKTIDE_DELIVERY_LANE_PENDING_MAX="40", HOOKTIDE_DELIVERY_LANE_IN_FLIGHT_MAX="16")


def test_events_that_always_fail_hold_up_no_others(play: Play) -> None:
    """One event in twenty fails until it is exhausted; of the others at least nine in ten come at once, and none is lost."""

    async def scenario(world: World) -> None:
        await started(world, ALPHA)
        others: list[tuple[Record, float]] = []
        refused: list[tuple[Record, float]] = []
        for number in range(600):
            [record] = world.publish(1, "alpha")
            if number % 20 == 0:
                world.endpoints.refused.add(record.event_id)
            (refused if number % 20 == 0 else others).append((record, world.loop.time()))
            await asyncio.sleep(0.05)
        first = {taken.key[0]: taken.at for taken in reversed(world.endpoints.log)}
        at_once = [record for record, at in others if first.get(record.event_id, at + 60.0) < at + 1.0]
        assert len(at_once) >= 0.9 * len(others)
        await finished(world)
        assert deliveries(world, [record for record, _ in others]) == [State.DELIVERED] * len(others)
        assert deliveries(world, [record for record, _ in refused]) == [State.EXHAUSTED] * len(refused)

    play(scenario, HOOKTIDE_DELIVERY_LANE_PENDING_MAX="20")


def test_many_lanes_that_go_behind_together_cost_the_next_event_nothing(play: Play) -> None:
    """They leave the routing index at once, although the ledger has taken none of their ranges yet."""

    async def scenario(world: World) -> None:
        world.many_behind = 50
        wishes = [replace(ALPHA, id=f"sub_{number:030x}00", state=PAUSED) for number in range(60)]
        await started(world, *wishes)
        await world.fill_disk(full=True)
        records = world.publish(2, "alpha")
        await asyncio.sleep(0.2)
        assert world.at_work().worker.replica.router.passed_by == {wish.id for wish in wishes}
        assert not world.store.ranges()
        await world.fill_disk(full=False)
        for wish in wishes:
            world.change(replace(wish, state=ACTIVE))
        await finished(world)
        assert all(deliveries(world, records, wish) == [State.DELIVERED] * 2 for wish in wishes)

    play(scenario, HOOKTIDE_DELIVERY_LANE_PENDING_MAX="1")


def test_a_burst_that_matches_nothing_does_not_wait_for_a_flush(play: Play) -> None:
    """More events than may be routed and not recorded are routed while the ledger takes nothing: there is nothing to write for them."""

    async def scenario(world: World) -> None:
        await started(world, ALPHA)
        await world.fill_disk(full=True)
        records = world.publish(1, "alpha") + world.publish(LIMIT_MAX + 100, "beta")
        await asyncio.sleep(1.0)
        assert world.at_work().worker.lane_modes.recorded_through < records[0].position
        follower = world.at_work().worker.follower
        assert follower is not None
        assert follower.routed() == records[-1].position
        await world.fill_disk(full=False)
        await finished(world)
        assert deliveries(world, records) == [State.DELIVERED]
        assert world.at_work().worker.lane_modes.recorded_through == records[-1].position

    play(scenario)
