"""Pauses: of a subscription, of a consumer, and of the whole system."""

import asyncio
from dataclasses import replace

import pytest
from hooktide.subscription.v1 import subscription_pb2 as pb

from services.delivery.model import State
from tests.delivery.conftest import Play
from tests.simulation.endpoints import Mode
from tests.simulation.registry import ACTIVE, DISABLED, PAUSED
from tests.simulation.scenarios import ALPHA, BETA, deliveries, finished, started, started_failing
from tests.simulation.world import CONSUMERS, World

OTHER = replace(BETA, consumer_id=CONSUMERS[1])


@pytest.mark.parametrize("crash", [False, True])
def test_while_the_system_is_paused_nothing_is_routed_or_sent(play: Play, *, crash: bool) -> None:
    """From the answer to the pause on, no attempt of a routed or a later event starts, also after a restart."""

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
    """Delivery knows of each pause within one second of its answer; two are promised. From then on no attempt starts."""

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


@pytest.mark.parametrize("crash", [False, True])
def test_while_a_consumer_is_paused_nothing_is_sent_to_its_subscriptions(play: Play, *, crash: bool) -> None:
    """From the answer to the pause on, no attempt starts, and another consumer's subscriptions go on. Also after a restart."""

    async def scenario(world: World) -> None:
        await started(world, ALPHA, OTHER)
        world.endpoints.modes[ALPHA.id] = Mode.FAILING
        records = world.publish(20, "alpha")
        await asyncio.sleep(1.0)
        await world.registry.told(world.pause_consumer(ALPHA.consumer_id, paused=True))
        world.endpoints.modes.clear()
        await asyncio.sleep(1.0)
        requests = world.endpoints.requests
        records += world.publish(20, "alpha")
        others = world.publish(5, "beta")
        if crash:
            await world.stop(crash=True)
            await world.start()
        await asyncio.sleep(600.0)
        assert world.endpoints.requests == requests + 5
        assert deliveries(world, others, OTHER) == [State.DELIVERED] * 5
        world.pause_consumer(ALPHA.consumer_id, paused=False)
        await finished(world, within_s=600.0)
        assert deliveries(world, records) == [State.DELIVERED] * 40

    play(scenario)


@pytest.mark.parametrize("consumer", [False, True])
@pytest.mark.parametrize("own", [ACTIVE, PAUSED, DISABLED])
@pytest.mark.parametrize("when", ["made before the pause", "made during the pause", "in a new snapshot"])
def test_a_subscription_gets_events_if_it_is_active_and_its_consumer_is_not_paused(
    play: Play, when: str, own: pb.SubscriptionState.ValueType, *, consumer: bool
) -> None:
    """A subscription keeps its own state during the pause of its consumer. After both it gets the events that waited, unless it was off."""

    async def scenario(world: World) -> None:
        wish, is_kept = replace(ALPHA, state=own), own != DISABLED
        await started(world, *([wish] if when == "made before the pause" else []), OTHER)
        world.pause_consumer(ALPHA.consumer_id, paused=consumer)
        if when != "made before the pause":
            world.change(wish)
        if when == "in a new snapshot":
            world.registry.compact()
            world.registry.restart()
        await asyncio.sleep(10.0)
        records = world.publish(3, "alpha")
        await asyncio.sleep(10.0)
        sent = 3 if own == ACTIVE and not consumer else 0
        assert world.endpoints.requests == sent
        world.activate(ALPHA.id)
        await asyncio.sleep(10.0)
        assert world.endpoints.requests == (3 if is_kept and not consumer else 0)
        world.pause_consumer(ALPHA.consumer_id, paused=False)
        await finished(world, within_s=60.0)
        assert deliveries(world, records) == [State.DELIVERED] * (3 if is_kept else 0)

    play(scenario)


def test_a_consumer_that_is_paused_and_resumed_at_any_moment_gets_everything_and_nothing_meanwhile(play: Play) -> None:
    """The lanes follow a change in steps, and a later change may come before they all have followed."""

    async def scenario(world: World) -> None:
        wishes = [replace(ALPHA, id=f"sub_{number:032x}") for number in range(30)]
        await started(world, *wishes)
        records = []
        for number in range(40):
            await world.registry.told(world.pause_consumer(ALPHA.consumer_id, paused=True))
            await asyncio.wait_for(world.at_work().worker.replica.reached(world.registry.revision), 1.0)
            requests = world.endpoints.requests
            records += world.publish(3, "alpha")
            await asyncio.sleep(1.0)
            assert world.endpoints.requests == requests
            world.pause_consumer(ALPHA.consumer_id, paused=False)
            await asyncio.sleep(number * 0.0005)
        await finished(world, within_s=60.0)
        for wish in wishes:
            assert deliveries(world, records, wish) == [State.DELIVERED] * 120

    play(scenario)


def test_while_paused_nothing_is_sent_and_nothing_is_lost(play: Play) -> None:
    async def scenario(world: World) -> None:
        records = await started_failing(world, 3, for_s=0.2)
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
