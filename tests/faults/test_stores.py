"""Rows 62 and 64: two processes on one store, and a store whose file goes away under a running service."""

from tests.eventlog.faults import take_away
from tests.faults.stage import Stage
from tests.system.processes import PATIENCE_S, Service, until


async def test_a_second_delivery_service_on_one_ledger_is_refused(own_stage: Stage) -> None:
    """In one line, before it sends anything; the first one goes on."""
    system = own_stage.system
    endpoint = await own_stage.subscribed("one.ledger")
    first, system.services["delivery"] = system.services["delivery"], Service("delivery")
    try:
        log = len(system.log("delivery"))
        system.launch("delivery")
        assert await system.ended("delivery") == 2
        said = [line for line in system.log("delivery")[log:].splitlines() if line.startswith("hooktide delivery: ")]
    finally:
        system.services["delivery"] = first
    assert said == [f"hooktide delivery: {system.data_dir}/delivery.db is in use by another process; stop that one first"]
    receipt = await own_stage.publish("one.ledger", "1")
    await until(lambda: receipt.event_id in endpoint.accepted(), PATIENCE_S, "the event")
    assert len(endpoint.arrivals) == 1


async def test_a_delivery_service_whose_ledger_is_removed_stops(own_stage: Stage) -> None:
    """With one line and no traceback: it could not know after a restart what it has sent."""
    system = own_stage.system
    await own_stage.subscribed("gone.ledger")
    take_away(system.data_dir / "delivery.db", "removed")
    await own_stage.publish("gone.ledger", "1")
    assert await system.ended("delivery") == 1
    said = system.log("delivery")
    assert "delivery.db was removed, replaced or moved" in said
    assert "Traceback" not in said
