from pathlib import Path

import pytest

from tests.bounds.pending import measure
from tests.support.memory import MB
from tests.support.system.processes import running_system
from tests.support.webhook_receivers.order_receiver import OrderReceiver


@pytest.mark.slow
async def test_what_waits_for_an_endpoint_drains_in_order_and_takes_little_memory(tmp_path: Path, orders: OrderReceiver) -> None:
    """One attempt at a time shows the order: by positions, and last the deliveries that were tried during the outage.

    The limit is in bytes, so it holds for a few large events as for many small ones.
    """
    settings = {"HOOKTIDE_DELIVERY_LANE_IN_FLIGHT_MAX": "1", "HOOKTIDE_DELIVERY_LANE_PENDING_MAX": "200"}
    async with running_system(tmp_path, settings) as system:
        large = await measure(system, orders, 300, size_bytes=200_000, endpoint="large", within_s=120)
        many = await measure(system, orders, 3000, endpoint="many", within_s=120)
    for result in (large, many):
        assert result.displaced_by == 0
        assert 0 < result.tried_before < 40
    assert large.above_idle < 60 * MB
    assert max(many.most_while_pending, many.most_while_draining) - large.idle < 60 * MB
