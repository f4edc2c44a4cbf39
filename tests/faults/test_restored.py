"""Row 10: a store is put back to an older copy. No event is skipped silently, no events come in a storm: an alarm reports it.

The log finds that it is the older copy if a cursor of the ledger lies beyond its end, or names another event than the log holds there.
The log finds that the ledger is the older copy if a cursor lies before what delivery has already released. Delivery reports that at
intervals of housekeeping, so whatever was delivered since the last report would come again, with the same ids. The registry is
recognised by its revision and by the random id of the change there: a replica that is ahead of the registry, or knows another change
by that revision, takes a new snapshot.
"""

import shutil
from pathlib import Path

from hooktide.delivery.v1 import delivery_pb2 as pb
from hooktide.ingest.v1 import ingest_pb2

from tests.faults.faulty_system import FaultySystem
from tests.support.waiting import PATIENCE_S, until, until_so
from tests.torture.campaign import eventually

STOPPED = "hooktide_stopped_groups"


async def _publish(faulty: FaultySystem, event_type: str, numbers: range) -> list[ingest_pb2.PublishReceipt]:
    """Publish events that all belong to one partition."""
    return [await faulty.publish(event_type, str(number), partitionkey="one") for number in numbers]


async def _copied(faulty: FaultySystem, service: str, as_name: str = "copy") -> Path:
    """Stop a service, keep a copy of its database, and start it again."""
    database = faulty.system.data_dir / f"{service}.db"
    assert await faulty.system.terminate(service) == 0
    copy = faulty.told / f"{service}.{as_name}"
    shutil.copy(database, copy)
    await faulty.system.restart(service)
    return copy


async def _restored(faulty: FaultySystem, service: str, copy: Path) -> None:
    """Stop a service and start it again on an older copy of its database."""
    assert await faulty.system.terminate(service) == 0
    shutil.copy(copy, faulty.system.data_dir / f"{service}.db")
    await faulty.system.restart(service)


async def _alarmed(faulty: FaultySystem) -> None:
    """Wait until routing is stopped, and check that the log has the alarm."""

    async def stopped() -> bool:
        return await faulty.metric("delivery", STOPPED) > 0 and "event=routing.stopped" in faulty.system.log("delivery")

    await until_so(stopped, PATIENCE_S, "routing is stopped")
    assert "the log or the ledger is an older copy" in faulty.system.log("delivery")


async def test_a_log_that_is_older_than_the_ledger_stops_routing_with_an_alarm(own_faulty: FaultySystem) -> None:
    """Routing also stops if the log has grown beyond the cursor again with other events, and it stays stopped over a restart."""
    faulty = own_faulty
    endpoint = await faulty.subscribed("older.log")
    await _publish(faulty, "older.log", range(10))
    await until(lambda: len(endpoint.accepted()) == 10, PATIENCE_S, "the first ten")
    copy = await _copied(faulty, "ingest")
    await _publish(faulty, "older.log", range(10, 20))
    await faulty.in_state("older.log", pb.DELIVERY_STATE_DELIVERED, 20)
    faulty.system.kill("delivery")
    await _restored(faulty, "ingest", copy)
    await _publish(faulty, "older.log", range(100, 115))
    await faulty.system.restart("delivery")
    await _alarmed(faulty)
    assert "routing is stopped" in await faulty.not_ready("delivery")
    await faulty.published("older.log", "waits", partitionkey="another")
    await faulty.kill_and_restart("delivery")
    await _alarmed(faulty)
    await faulty.in_state("older.log", pb.DELIVERY_STATE_DELIVERED, 20)
    assert len(endpoint.arrivals) == 20


async def test_a_log_that_is_put_back_under_a_running_delivery_stops_routing_with_an_alarm(own_faulty: FaultySystem) -> None:
    faulty = own_faulty
    endpoint = await faulty.subscribed("older.log")
    await _publish(faulty, "older.log", range(10))
    await until(lambda: len(endpoint.accepted()) == 10, PATIENCE_S, "the first ten")
    copy = await _copied(faulty, "ingest")
    await _publish(faulty, "older.log", range(10, 20))
    await faulty.in_state("older.log", pb.DELIVERY_STATE_DELIVERED, 20)
    await _restored(faulty, "ingest", copy)
    await _alarmed(faulty)
    assert len(endpoint.arrivals) == 20


async def test_a_ledger_that_is_older_than_the_log_stops_routing_with_an_alarm(own_faulty: FaultySystem) -> None:
    """If delivery went on from the old cursor, it would repeat deliveries and skip what the log has trimmed."""
    faulty = own_faulty
    endpoint = await faulty.subscribed("older.ledger")
    await _publish(faulty, "older.ledger", range(10))
    await faulty.in_state("older.ledger", pb.DELIVERY_STATE_DELIVERED, 10)
    copy = await _copied(faulty, "delivery")
    receipts = await _publish(faulty, "older.ledger", range(10, 20))
    await faulty.in_state("older.ledger", pb.DELIVERY_STATE_DELIVERED, 20)
    await faulty.released(receipts[-1].position)
    await _restored(faulty, "delivery", copy)
    await _alarmed(faulty)
    assert len(endpoint.arrivals) == 20


async def test_a_registry_that_is_put_back_is_taken_as_it_is_now(own_faulty: FaultySystem) -> None:
    """Later subscriptions are gone and their waiting deliveries are cancelled; older subscriptions go on."""
    faulty = own_faulty
    before, since = await faulty.subscribed("older.registry"), faulty.receiver.endpoint("since")
    copy = await _copied(faulty, "subscription")
    since.status = lambda: 503
    subscription_id = await eventually(lambda: faulty.consumer.subscribe(since, ["older.registry"]))
    await faulty.publish("older.registry", "1")
    await until(lambda: since.arrivals and before.accepted(), PATIENCE_S, "an attempt at both")
    await _restored(faulty, "subscription", copy)

    async def cancelled() -> bool:
        deliveries = [each for each in await faulty.delivered("older.registry") if each.subscription_id == subscription_id]
        return [each.state for each in deliveries] == [pb.DELIVERY_STATE_CANCELLED]

    await until_so(cancelled, PATIENCE_S, "what waits for it is cancelled")
    assert "event=replica.snapshot_requested" in faulty.system.log("delivery")
    seen = len(since.arrivals)
    receipt = await faulty.published("older.registry", "2")
    await until(lambda: receipt.event_id in before.accepted(), PATIENCE_S, "an event for the subscription that is left")
    assert len(since.arrivals) == seen


async def test_a_registry_that_is_put_back_and_changed_as_often_is_taken_as_it_is_now(own_faulty: FaultySystem) -> None:
    """The revision is the same as before: the ids of the changes tell the two histories apart, from the first event on."""
    faulty = own_faulty
    before, gone, there = await faulty.subscribed("other.registry"), faulty.receiver.endpoint("gone"), faulty.receiver.endpoint("there")
    copy = await _copied(faulty, "subscription")
    await eventually(lambda: faulty.consumer.subscribe(there, ["other.registry"]))
    other = await _copied(faulty, "subscription", as_name="other")
    await _restored(faulty, "subscription", copy)
    await eventually(lambda: faulty.consumer.subscribe(gone, ["other.registry"]))
    first = await faulty.published("other.registry", "1")
    await until(lambda: first.event_id in gone.accepted() & before.accepted(), PATIENCE_S, "an event for the subscriptions of then")
    await _restored(faulty, "subscription", other)
    second = await faulty.published("other.registry", "2")
    await until(lambda: second.event_id in there.accepted() & before.accepted(), PATIENCE_S, "an event for the subscriptions of now")
    await faulty.in_state("other.registry", pb.DELIVERY_STATE_DELIVERED, 4)
    assert len(gone.arrivals) == 1
