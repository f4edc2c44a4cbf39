import asyncio
import random

import pytest

from tests.delivery.conftest import Play
from tests.simulation.faults import HAPPENINGS
from tests.simulation.world import World

SEEDS = range(30)
STEPS = 120


async def _step(world: World) -> None:
    """Let one fault happen, then some time pass."""
    chance = world.chance
    (happening,) = chance.choices(list(HAPPENINGS), list(HAPPENINGS.values()))
    await happening(world, list(world.registry.wishes.values()))
    await asyncio.sleep(chance.choice((0.0, 0.002, 0.02, 0.1, 1.0, 5.0, 40.0)) * chance.random())
    world.check()


async def _run(world: World) -> None:
    world.clock.busy_share = world.chance.choice((0.0, 1.0))
    world.endpoints.at_once = world.chance.choice((1, 3, 1000))
    for _ in range(5):
        world.subscribe()
    await world.start()
    for _ in range(STEPS):
        await _step(world)
    await world.heal()
    await world.settle(within_s=3600.0)
    world.check_end()
    await world.check_rest()


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_happens_every_event_reaches_its_end(seed: int, play: Play) -> None:
    """From any seed: the invariants I1 to I6 hold, and when everything works again the backlog drains (I8)."""
    bounds = random.Random(seed)
    settings = {
        "HOOKTIDE_DELIVERY_IN_FLIGHT_MAX": bounds.choice(("4", "8", "64")),
        "HOOKTIDE_DELIVERY_LANE_IN_FLIGHT_MAX": bounds.choice(("1", "3", "16")),
        "HOOKTIDE_DELIVERY_LANE_PENDING_MAX": bounds.choice(("1", "5", "40")),
    }
    play(_run, seed, **settings)
