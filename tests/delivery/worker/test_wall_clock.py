"""Wall clock: due times outlive a restart, whatever the wall clock did before it."""

import asyncio
from dataclasses import replace

from services.delivery.model import State
from tests.delivery.conftest import Play
from tests.simulation.endpoints import Mode
from tests.simulation.registry import PAUSED
from tests.simulation.scenarios import ALPHA, BETA, deliveries, finished, started
from tests.simulation.world import World


def test_retries_keep_their_delays_if_the_wall_clock_was_behind_while_a_process_started(play: Play) -> None:
    """The due clock of that process is late, by the time since rows were last written; the next process goes on with the same clock."""

    async def scenario(world: World) -> None:
        await started(world, ALPHA, replace(BETA, state=PAUSED))
        world.publish(1, "beta")
        await asyncio.sleep(0.3)
        await world.stop(crash=True)
        await asyncio.sleep(0.5)
        world.set_clock_ahead(-60.0, 0.5)
        await world.start()
        await asyncio.sleep(0.6)
        world.endpoints.modes[ALPHA.id] = Mode.THROTTLING
        throttled = world.publish(1, "alpha")
        await asyncio.sleep(0.9)
        assert world.endpoints.sent[throttled[0].event_id, ALPHA.id].attempts == 1
        world.endpoints.modes.clear()
        await world.stop(crash=True)
        await world.start()
        world.change(BETA)
        await finished(world)
        assert deliveries(world, throttled) == [State.DELIVERED]

    play(scenario)
