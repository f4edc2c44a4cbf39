"""Pauses: of a subscription, of a consumer, and of the whole system."""

import asyncio
from dataclasses import replace

import pytest

from services.delivery.model import State
from tests.delivery.conftest import Play
from tests.simulation.endpoints import Mode
from tests.simulation.registry import PAUSED
from tests.simulation.scenarios import ALPHA, BETA, deliveries, finished, started
from tests.simulation.world import World


@pytest.mark.parametrize("crash", [False, True])
def test_while_the_system_is_paused_nothing_is_routed_or_sent(play: Play, *, crash: bool) -> None:
    """From the answer to the pause on, no attempt starts: none of what is routed, and none of what comes. Also after a restart."""

    async def scenario(world: World) -> None:
        await started(world, ALPHA, BETA)
        world.endpoints.modes[ALPHA.id] = Mode.FAILING
        records = world.publish(20, "alpha")
        await asyncio.sleep(1.0)
        await world.registry.told(world.registry.pause_system(paused=True))
        world.endpoints.modes.clear()
        await asyncio.sleep(2.0)
        requests, routed = world.endpoints.requests, len(deliveries(world, records))
        records += world.publish(20, "alpha")
        others = world.publish(5, "beta")
        await asyncio.sleep(3600.0)
        if crash:
            await world.stop(crash=True)
            await world.start()
            await asyncio.sleep(600.0)
        assert world.endpoints.requests == requests
        assert (len(deliveries(world, records)), deliveries(world, others, BETA)) == (routed, [])
        worker = world.at_work().worker
        assert worker.why_not_ready() is None
        assert str(worker.why_degraded()).startswith("the operator has paused all deliveries")
        world.registry.pause_system(paused=False)
        await finished(world, within_s=600.0)
        assert deliveries(world, records) == [State.DELIVERED] * 40
        assert deliveries(world, others, BETA) == [State.DELIVERED] * 5

    play(scenario)


def test_a_system_that_is_paused_again_at_any_moment_of_its_resumption_is_paused(play: Play) -> None:
    """Delivery knows of each pause within a second of its answer, of the two that are promised, and from then on no attempt starts."""

    async def scenario(world: World) -> None:
        await started(world, ALPHA)
        records = []
        for number in range(40):
            await world.registry.told(world.registry.pause_system(paused=True))
            await asyncio.wait_for(world.at_work().worker.replica.reached(world.registry.revision), 1.0)
            requests = world.endpoints.requests
            records += world.publish(3, "alpha")
            await asyncio.sleep(1.0)
            assert world.endpoints.requests == requests
            world.registry.pause_system(paused=False)
            await asyncio.sleep(number * 0.0005)
        await finished(world, within_s=60.0)
        assert deliveries(world, records) == [State.DELIVERED] * 120

    play(scenario)


def test_while_a_consumer_is_paused_its_subscriptions_are(play: Play) -> None:
    async def scenario(world: World) -> None:
        await started(world, replace(ALPHA, consumer_paused=True), BETA)
        records, others = world.publish(20, "alpha"), world.publish(5, "beta")
        await asyncio.sleep(60.0)
        assert world.endpoints.requests == 5
        assert deliveries(world, others, BETA) == [State.DELIVERED] * 5
        world.change(ALPHA)
        await finished(world, within_s=60.0)
        assert deliveries(world, records) == [State.DELIVERED] * 20

    play(scenario)


def test_while_paused_nothing_is_sent_and_nothing_is_lost(play: Play) -> None:
    async def scenario(world: World) -> None:
        await started(world, ALPHA)
        world.endpoints.modes[ALPHA.id] = Mode.FAILING
        records = world.publish(3, "alpha")
        await asyncio.sleep(0.2)
        world.change(replace(ALPHA, state=PAUSED))
        world.endpoints.modes.clear()
        await asyncio.sleep(1.0)
        requests = world.endpoints.requests
        for _ in range(5):
            records += world.publish(10, "alpha")
            await asyncio.sleep(3600.0)
        assert world.endpoints.requests == requests
        world.change(ALPHA)
        await finished(world, within_s=60.0)
        assert deliveries(world, records) == [State.DELIVERED] * 53

    play(scenario)
