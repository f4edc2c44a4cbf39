from tests.bounds.soak import measure
from tests.support.memory import MB
from tests.support.system.processes import SERVICES, System
from tests.support.webhook_receivers.order_receiver import OrderReceiver


async def test_events_pass_and_no_process_grows(system: System, orders: OrderReceiver) -> None:
    """A short form of the program in `soak.py`, which passes half a million events; this early, caches are still filling."""
    result = await measure(system, orders, 8000, ahead=1500, within_s=120, run="soak-")
    assert all(result.growth(name) < 40 * MB for name in SERVICES), result
