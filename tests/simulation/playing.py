"""Playing: plays a scenario to its end in a new world, in virtual time."""

import asyncio
import random
from collections.abc import Awaitable, Callable

from services.runtime.configuration.settings import DeliverySettings
from tests.delivery.ledger.stores import LedgerStore
from tests.simulation.world import World
from tests.support.virtual_time import VirtualLoop

Scenario = Callable[[World], Awaitable[None]]


def play_scenario(scenario: Scenario, seed: int, settings: DeliverySettings, store: LedgerStore) -> None:
    """Play a scenario to its end; the seed decides everything that happens by chance."""
    random.seed(seed)
    with asyncio.Runner(loop_factory=lambda: VirtualLoop(seed)) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, VirtualLoop)

        async def simulate() -> None:
            world = World(loop, random.Random(seed), settings, store)
            await scenario(world)
            if world.running is not None:
                await world.stop(crash=False)

        runner.run(simulate())
