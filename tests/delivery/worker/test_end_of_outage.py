"""End of an outage, in virtual time: all sinks of a consumer come back at once, and many deliveries wait for each."""

import asyncio
from collections import Counter
from dataclasses import replace

from tests.delivery.conftest import Play
from tests.simulation.endpoints import Mode
from tests.simulation.scenarios import ALPHA, finished, started
from tests.simulation.world import World

LANES = [replace(ALPHA, id=f"sub_{number:032x}") for number in range(1, 11)]
EVENTS_PER_S = 15


async def load(world: World, seconds: int, mode: Mode) -> float:
    """Publish for some seconds while all sinks are in a mode; return when that began."""
    began = world.loop.time()
    for wish in LANES:
        world.endpoints.modes[wish.id] = mode
    for _ in range(seconds * EVENTS_PER_S):
        world.publish(1, "alpha")
        await asyncio.sleep(1 / EVENTS_PER_S)
    return began


def attempts_by_second(world: World, since: float) -> list[int]:
    """Return how many attempts began in each second since a time."""
    seconds = Counter(int(taken.at - since) for taken in world.endpoints.log if taken.at >= since)
    return [seconds[each] for each in range(max(seconds) + 1)]


def test_many_lanes_catch_up_at_no_more_than_twice_the_rate_of_before(play: Play) -> None:
    """Before the outage the sinks get as much as they can take of this consumer: 50 attempts at once, of 0.4 s each.

    Afterwards each lane has a probe, retries, and events that wait in the log. All of them drain, and the lanes are live again. That holds
    also for lanes that have read to the end of their range and go behind before they have sent it.
    """

    async def scenario(world: World) -> None:
        await started(world, *LANES)
        world.endpoints.slow_s = 0.4
        before = await load(world, 8, Mode.SLOW)
        during = await load(world, 20, Mode.FAILING)
        steady = sum(attempts_by_second(world, before)[3:8]) / 5
        assert 80 <= steady <= 130
        after = await load(world, 1, Mode.SLOW)
        await finished(world, within_s=120.0)
        rates = attempts_by_second(world, after)
        assert after - during < 25.0
        assert max(rates) <= 2 * steady, rates
        assert sum(rates) >= 2_000, "too little has waited"

    play(
        scenario,
        HOOKTIDE_DELIVERY_IN_FLIGHT_MAX="100",
        HOOKTIDE_DELIVERY_LANE_IN_FLIGHT_MAX="100",
        HOOKTIDE_DELIVERY_LANE_PENDING_MAX="1000",
        HOOKTIDE_DELIVERY_RETRY_DELAYS_SECONDS="5,10,20,40",
    )
