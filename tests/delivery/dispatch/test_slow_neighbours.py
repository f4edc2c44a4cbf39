"""Slow neighbours, in virtual time: endpoints of one consumer that take their time do not hold up another consumer."""

import asyncio
from dataclasses import replace

import pytest

from services.delivery.model import State
from tests.delivery.conftest import Play
from tests.simulation.endpoints import Mode
from tests.simulation.scenarios import ALPHA, BETA, deliveries, finished, started
from tests.simulation.world import CONSUMERS, World

SLOW = [replace(ALPHA, id=f"sub_{number:032x}", consumer_id=CONSUMERS[0]) for number in range(1, 61)]
HEALTHY = replace(BETA, consumer_id=CONSUMERS[1])


@pytest.mark.parametrize("mode", [Mode.SLOW, Mode.SILENT, Mode.FAILING], ids=["answers after 28 s", "never answers", "fails"])
def test_another_consumer_s_events_arrive_at_once(play: Play, mode: Mode) -> None:
    """Sixty lanes want four attempts each, and there are places for 64."""

    async def scenario(world: World) -> None:
        await started(world, *SLOW, HEALTHY)
        world.endpoints.slow_s = 28.0
        for wish in SLOW:
            world.endpoints.modes[wish.id] = mode
        world.publish(8, "alpha")
        await asyncio.sleep(5.0)
        for _ in range(30):
            records = world.publish(10, "beta")
            await asyncio.sleep(2.0)
            assert deliveries(world, records, HEALTHY) == [State.DELIVERED] * 10
        world.endpoints.modes.clear()
        await finished(world, within_s=7200.0)

    play(scenario, HOOKTIDE_DELIVERY_IN_FLIGHT_MAX="64", HOOKTIDE_DELIVERY_LANE_PENDING_MAX="100")


def test_lanes_of_one_consumer_that_were_never_tried_are_tried_in_the_order_of_their_coming(play: Play) -> None:
    """New subscriptions with dead sinks come faster than attempts to unproven sinks may start."""
    dead = [replace(ALPHA, id=f"sub_{number:032x}", types=(f"dead.{number}",)) for number in range(1, 301)]
    waiting = replace(ALPHA, id="sub_" + "f" * 32, types=("waiting",))

    async def scenario(world: World) -> None:
        await started(world, *dead, waiting)
        for wish in dead:
            world.endpoints.modes[wish.id] = Mode.FAILING
        come = []
        for number, wish in enumerate(dead):
            if number == 150:
                world.publish(1, "waiting")
            come += world.publish(1, wish.types[0])
            await asyncio.sleep(0.01)
        await asyncio.sleep(20.0)
        later = {record.event_id for record in come[155:]}
        first = next(number for number, taken in enumerate(world.endpoints.log) if taken.key[1] == waiting.id)
        assert not [taken for taken in world.endpoints.log[:first] if taken.key[0] in later]
        assert {taken.key[1] for taken in world.endpoints.log} == {wish.id for wish in (*dead, waiting)}
        world.endpoints.modes.clear()
        await finished(world, within_s=7200.0)

    play(scenario, HOOKTIDE_DELIVERY_IN_FLIGHT_MAX="64", HOOKTIDE_DELIVERY_LANE_PENDING_MAX="100")


def test_each_of_many_dead_sinks_holds_few_events_in_memory(play: Play) -> None:
    """When a burst comes, most sinks are untried. Each of their lanes holds one event, or the four of a short page, and owes the rest."""
    dead = [replace(ALPHA, id=f"sub_{number:032x}") for number in range(1, 301)]

    async def scenario(world: World) -> None:
        await started(world, *dead)
        for wish in dead:
            world.endpoints.modes[wish.id] = Mode.FAILING
        world.publish(1, "alpha")
        await asyncio.sleep(0.02)
        world.publish(40, "alpha")
        most = 0
        for _ in range(200):
            await asyncio.sleep(0.02)
            held = [len(lane.held) for lane in world.at_work().worker.dispatcher.lanes if not lane.failures]
            most = max([most, *held])
        assert 1 <= most <= 4
        world.endpoints.modes.clear()
        await finished(world, within_s=7200.0)

    play(scenario, HOOKTIDE_DELIVERY_IN_FLIGHT_MAX="64", HOOKTIDE_DELIVERY_LANE_PENDING_MAX="100")
