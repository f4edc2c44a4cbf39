"""Rows 16 and 17: while a service is down, the others stop only the work that needs it."""

from hooktide.delivery.v1 import delivery_pb2 as pb

from tests.faults.faulty_system import FaultySystem
from tests.support.waiting import PATIENCE_S, until, until_so


async def test_without_the_registry_what_is_routed_goes_on_and_new_events_wait_in_the_log(faulty: FaultySystem) -> None:
    """Events are acknowledged while ingest may still trust its cached answers; a metric shows the age of the oldest waiting event."""
    endpoint = await faulty.subscribed("away.registry")
    endpoint.status = lambda: 503
    routed = await faulty.publish("away.registry", "routed")
    await until(lambda: endpoint.arrivals, PATIENCE_S, "its first attempt")
    faulty.system.kill("subscription")
    waiting = await faulty.publish("away.registry", "waiting")
    attempts = len(endpoint.arrivals)
    endpoint.status = lambda: 200
    await until(lambda: endpoint.accepted() == {routed.event_id}, PATIENCE_S, "the delivery that was routed before")
    assert len(endpoint.arrivals) > attempts

    async def aged() -> bool:
        return await faulty.metric("delivery", "hooktide_unrouted_age_seconds") > 0.5

    await until_so(aged, PATIENCE_S, "the age of the oldest event that waits")
    assert [record.event_id for record in await faulty.logged("away.registry")] == [waiting.event_id, routed.event_id]
    assert endpoint.accepted() == {routed.event_id}
    await faulty.system.restart("subscription")
    await until(lambda: endpoint.accepted() == {routed.event_id, waiting.event_id}, PATIENCE_S, "the event that waited")
    await faulty.in_state("away.registry", pb.DELIVERY_STATE_DELIVERED, 2)
    assert await faulty.metric("delivery", "hooktide_unrouted_age_seconds") == 0


async def test_without_ingest_delivery_waits_and_goes_on_from_its_position(faulty: FaultySystem) -> None:
    """No event comes twice and none is left out, wherever reading stood when the log went away."""
    endpoint = await faulty.subscribed("away.ingest")
    before = [await faulty.publish("away.ingest", f"before {number}") for number in range(20)]
    await faulty.kill_and_restart("ingest")
    after = [await faulty.published("away.ingest", f"after {number}") for number in range(20)]
    everything = {receipt.event_id for receipt in (*before, *after)}
    await until(lambda: endpoint.accepted() == everything, PATIENCE_S, "all of them")
    await faulty.in_state("away.ingest", pb.DELIVERY_STATE_DELIVERED, 40)
    assert len(endpoint.arrivals) == 40
