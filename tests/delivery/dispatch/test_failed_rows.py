import asyncio

import pytest

from services.delivery.dispatch import lane
from services.delivery.model import State
from tests.delivery.conftest import Play
from tests.simulation.scenarios import ALPHA, deliveries, finished, started_failing
from tests.simulation.world import World


def test_a_lane_with_too_many_failed_deliveries_takes_no_more_until_half_of_them_are_read_back(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane, "FAILED_ROWS_MAX", 8)

    async def scenario(world: World) -> None:
        records = await started_failing(world, 8, for_s=2.0)
        lane = world.at_work().worker.dispatcher.lanes.lane(ALPHA.id)
        assert lane.is_slowed
        records += world.publish(50, "alpha")
        await asyncio.sleep(1.0)
        assert len(world.open_rows()) <= 8
        world.endpoints.modes.clear()
        await finished(world, within_s=3600.0)
        assert deliveries(world, records) == [State.DELIVERED] * len(records)

    play(scenario, HOOKTIDE_DELIVERY_RETRY_DELAYS_SECONDS="60,60,60,60")
