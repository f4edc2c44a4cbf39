from tests.bounds.soak import measure
from tests.support.memory import MB
from tests.support.order_receiver import Catcher
from tests.support.system import SERVICES, System


async def test_events_pass_and_no_process_grows(system: System, catcher: Catcher) -> None:
    """A short form of the program in `soak.py`, which passes half a million events; this early, caches are still filling."""
    result = await measure(system, catcher, 8000, ahead=1500, within_s=120, run="soak-")
    assert all(result.growth(name) < 40 * MB for name in SERVICES), result
