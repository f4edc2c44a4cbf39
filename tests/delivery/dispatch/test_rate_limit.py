"""Rate limit: a lane sends no faster than its subscription's rate, in virtual time."""

import pytest

from tests.delivery.conftest import Play
from tests.simulation.registry import Wish
from tests.simulation.scenarios import ALPHA, finished, started
from tests.simulation.world import World


@pytest.mark.parametrize(("rate", "count"), [(0.5, 20), (5.0, 60), (200.0, 600)])
def test_a_lane_keeps_to_its_rate_and_the_others_do_not_wait_for_it(play: Play, rate: float, count: int) -> None:
    """The rate also holds while the lane is idle and forgotten; a delivery that waits for a token loses no attempt."""

    async def scenario(world: World) -> None:
        slow = Wish(ALPHA.id, ALPHA.consumer_id, ALPHA.types, rate_per_second=rate)
        await started(world, slow)
        for _ in range(4):
            world.publish(count // 4, "alpha")
            await world.settle(600.0)
        await finished(world)
        began = [taken.at for taken in world.endpoints.log]
        window_s, most = (1.0, rate) if rate >= 1 else (1 / rate, 1.0)
        assert len(began) == count
        assert {taken.number for taken in world.endpoints.log} == {1}
        assert max(sum(first <= each < first + window_s * 0.999 for each in began) for first in began) <= most

    play(scenario, HOOKTIDE_DELIVERY_LANE_PENDING_MAX="20")
