"""Read barrier in virtual time: how often delivery asks the registry, and how soon a subscription write is answered."""

import asyncio
from dataclasses import replace

from services.delivery.model import State
from services.delivery.subscriptions.revision_client import LEASE_S
from tests.delivery.conftest import Play
from tests.simulation.scenarios import ALPHA, BETA, deliveries, finished, started
from tests.simulation.world import World

OTHER = replace(BETA, types=("alpha",))


def test_the_registry_is_asked_once_a_lease_however_much_comes(play: Play) -> None:
    async def scenario(world: World) -> None:
        await started(world, ALPHA)
        records = []
        for _ in range(500):
            records += world.publish(1, "alpha")
            await asyncio.sleep(0.01)
        assert 5.0 / LEASE_S / 2 < world.registry.questions <= 5.0 / LEASE_S + 1
        await finished(world)
        assert deliveries(world, records) == [State.DELIVERED] * 500

    play(scenario)


def test_a_change_within_a_lease_is_answered_as_soon_as_it_is_known(play: Play) -> None:
    """From that answer on every event is routed by the change."""

    async def scenario(world: World) -> None:
        await started(world, ALPHA)
        waited_s = []
        for _ in range(20):
            world.publish(1, "alpha")
            await asyncio.sleep(0.1)
            created = await world.told(world.change(OTHER))
            waited_s.append(created.told_at - created.since)
            first = world.publish(1, "alpha")
            await asyncio.sleep(0.1)
            world.delete(OTHER.id)
            deleted = await world.told(OTHER)
            waited_s.append(deleted.told_at - deleted.since)
            later = world.publish(1, "alpha")
            await finished(world)
            assert deliveries(world, first, OTHER) == [State.DELIVERED]
            assert deliveries(world, later, OTHER) == []
        assert sum(waited_s) / len(waited_s) < LEASE_S / 10

    play(scenario)


def test_a_worker_that_hears_of_nothing_holds_a_change_up_until_its_lease_ends(play: Play) -> None:
    """A worker that has lost its watch relies on no lease: the next event waits until the registry can be asked."""

    async def scenario(world: World) -> None:
        await started(world, ALPHA)
        world.publish(1, "alpha")
        await asyncio.sleep(0.1)
        world.registry.set_reachable(reachable=False)
        await asyncio.sleep(0.1)
        records = world.publish(1, "alpha")
        created = await world.told(world.change(OTHER))
        assert LEASE_S / 2 < created.told_at - created.since < 2 * LEASE_S
        records += world.publish(1, "alpha")
        await asyncio.sleep(10.0)
        assert deliveries(world, records) == []
        world.return_registry()
        await finished(world)
        assert deliveries(world, records) == [State.DELIVERED] * 2
        assert deliveries(world, records[1:], OTHER) == [State.DELIVERED]

    play(scenario)
