"""Sinks that answer 410 Gone, in virtual time: they get no more requests, however long the registry takes to hear of it."""

import asyncio
from dataclasses import replace

from services.delivery.model import State
from tests.delivery.conftest import Play
from tests.simulation.endpoints import Mode
from tests.simulation.scenarios import ALPHA, deliveries, finished, started
from tests.simulation.world import World

HOUR_S = 3600.0


async def gone(world: World) -> None:
    """Change the subscription once, then let its sink answer 410."""
    await started(world, ALPHA)
    world.change(replace(ALPHA, types=("alpha", "beta")))
    await asyncio.sleep(1.0)
    world.endpoints.modes[ALPHA.id] = Mode.GONE
    world.registry.hears_of_gone = False
    world.publish(1, "alpha")
    await asyncio.sleep(1.0)
    assert world.endpoints.requests == 1


def test_a_change_of_anything_but_the_sink_sends_nothing_to_it(play: Play) -> None:
    """The sink is still the one that is gone."""

    async def scenario(world: World) -> None:
        await gone(world)
        for number in range(3):
            world.change(replace(ALPHA, types=("alpha", f"gamma.{number}")))
            world.publish(5, "alpha")
            await asyncio.sleep(60.0)
        assert world.endpoints.requests == 1

    play(scenario)


def test_a_new_snapshot_sends_nothing_to_it(play: Play) -> None:
    async def scenario(world: World) -> None:
        await gone(world)
        world.registry.set_reachable(reachable=False)
        await asyncio.sleep(0.5)
        world.change(replace(ALPHA, source=""))
        world.registry.compact()
        world.return_registry()
        await asyncio.sleep(60.0)
        assert world.endpoints.requests == 1

    play(scenario)


def test_the_registry_is_told_until_it_hears(play: Play) -> None:
    """When the registry has heard, waiting deliveries are cancelled."""

    async def scenario(world: World) -> None:
        await gone(world)
        records = world.publish(5, "alpha")
        await asyncio.sleep(120.0)
        assert len(world.registry.told_gone) > 10
        world.registry.hears_of_gone = True
        await finished(world, within_s=60.0)
        assert deliveries(world, records) == [State.CANCELLED] * 5
        assert world.endpoints.requests == 1

    play(scenario)


def test_it_is_asked_once_an_hour_while_the_registry_cannot_be_told(play: Play) -> None:
    async def scenario(world: World) -> None:
        await gone(world)
        world.publish(20, "alpha")
        for hour in range(1, 4):
            await asyncio.sleep(HOUR_S)
            # Requests up to the concurrency limit are sent before the first of them is answered.
            assert world.endpoints.requests <= 1 + 4 * hour
        world.registry.hears_of_gone = True
        await finished(world, within_s=60.0)

    play(scenario, HOOKTIDE_DELIVERY_RETRY_DELAYS_SECONDS="60,60,60,60,60,60")


def test_another_sink_is_sent_to_at_once(play: Play) -> None:
    async def scenario(world: World) -> None:
        await gone(world)
        records = world.publish(5, "alpha")
        await asyncio.sleep(10.0)
        world.endpoints.modes.clear()
        world.change(replace(ALPHA, sink="https://consumer.example/new"))
        await finished(world, within_s=60.0)
        assert deliveries(world, records) == [State.DELIVERED] * 5

    play(scenario)
