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

from tests.faults.faulty_system import Stage
from tests.support.waiting import PATIENCE_S, until, until_so
from tests.torture.campaign import eventually

STOPPED = "hooktide_stopped_partitions"


async def _publish(stage: Stage, event_type: str, numbers: range) -> list[ingest_pb2.PublishReceipt]:
    """Publish events that all belong to one partition."""
    return [await stage.publish(event_type, str(number), partitionkey="one") for number in numbers]


async def _copied(stage: Stage, service: str, as_name: str = "copy") -> Path:
    """Stop a service, keep a copy of its database, and start it again."""
    database = stage.system.data_dir / f"{service}.db"
    assert await stage.system.terminate(service) == 0
    copy = stage.told / f"{service}.{as_name}"
    shutil.copy(database, copy)
    await stage.system.restart(service)
    return copy


async def _restored(stage: Stage, service: str, copy: Path) -> None:
    """Stop a service and start it again on an older copy of its database."""
    assert await stage.system.terminate(service) == 0
    shutil.copy(copy, stage.system.data_dir / f"{service}.db")
    await stage.system.restart(service)


async def _alarmed(stage: Stage) -> None:
    """Wait until a partition is stopped, and check that the log has the alarm."""

    async def stopped() -> bool:
        # The line comes after the metric: the others are followed first.
        return await stage.metric("delivery", STOPPED) > 0 and "event=partitions.stopped" in stage.system.log("delivery")

    await until_so(stopped, PATIENCE_S, "a partition is stopped")
    assert "the log or the ledger is an older copy" in stage.system.log("delivery")


async def test_a_log_that_is_older_than_the_ledger_stops_the_partition_with_an_alarm(own_stage: Stage) -> None:
    """The partition also stops if the log has grown beyond the cursor again with other events; partitions that fit go on."""
    stage = own_stage
    endpoint = await stage.subscribed("older.log")
    await _publish(stage, "older.log", range(10))
    await until(lambda: len(endpoint.accepted()) == 10, PATIENCE_S, "the first ten")
    copy = await _copied(stage, "ingest")
    await _publish(stage, "older.log", range(10, 20))
    await stage.in_state("older.log", pb.DELIVERY_STATE_DELIVERED, 20)
    stage.system.kill("delivery")
    await _restored(stage, "ingest", copy)
    await _publish(stage, "older.log", range(100, 115))
    await stage.system.restart("delivery")
    await _alarmed(stage)
    fitting = await stage.published("older.log", "fits", partitionkey="another")
    await until(lambda: fitting.event_id in endpoint.accepted(), PATIENCE_S, "an event of a partition that fits")
    await stage.in_state("older.log", pb.DELIVERY_STATE_DELIVERED, 21)
    assert len(endpoint.arrivals) == 21
    await stage.kill_and_restart("delivery")
    await _alarmed(stage)
    assert len(endpoint.arrivals) == 21


async def test_a_log_that_is_put_back_under_a_running_delivery_stops_the_partition_with_an_alarm(own_stage: Stage) -> None:
    stage = own_stage
    endpoint = await stage.subscribed("older.log")
    await _publish(stage, "older.log", range(10))
    await until(lambda: len(endpoint.accepted()) == 10, PATIENCE_S, "the first ten")
    copy = await _copied(stage, "ingest")
    await _publish(stage, "older.log", range(10, 20))
    await stage.in_state("older.log", pb.DELIVERY_STATE_DELIVERED, 20)
    await _restored(stage, "ingest", copy)
    await _alarmed(stage)
    assert len(endpoint.arrivals) == 20


async def test_a_ledger_that_is_older_than_the_log_stops_the_partition_with_an_alarm(own_stage: Stage) -> None:
    """If delivery went on from the old cursor, it would repeat deliveries and skip what the log has trimmed."""
    stage = own_stage
    endpoint = await stage.subscribed("older.ledger")
    await _publish(stage, "older.ledger", range(10))
    await stage.in_state("older.ledger", pb.DELIVERY_STATE_DELIVERED, 10)
    copy = await _copied(stage, "delivery")
    receipts = await _publish(stage, "older.ledger", range(10, 20))
    await stage.in_state("older.ledger", pb.DELIVERY_STATE_DELIVERED, 20)
    await stage.released(receipts[-1].position)
    await _restored(stage, "delivery", copy)
    await _alarmed(stage)
    assert len(endpoint.arrivals) == 20


async def test_a_registry_that_is_put_back_is_taken_as_it_is_now(own_stage: Stage) -> None:
    """Later subscriptions are gone and their waiting deliveries are cancelled; older subscriptions go on."""
    stage = own_stage
    before, since = await stage.subscribed("older.registry"), stage.receiver.endpoint("since")
    copy = await _copied(stage, "subscription")
    since.status = lambda: 503
    subscription_id = await eventually(lambda: stage.consumer.subscribe(since, ["older.registry"]))
    await stage.publish("older.registry", "1")
    await until(lambda: since.arrivals and before.accepted(), PATIENCE_S, "an attempt at both")
    await _restored(stage, "subscription", copy)

    async def cancelled() -> bool:
        deliveries = [each for each in await stage.delivered("older.registry") if each.subscription_id == subscription_id]
        return [each.state for each in deliveries] == [pb.DELIVERY_STATE_CANCELLED]

    await until_so(cancelled, PATIENCE_S, "what waits for it is cancelled")
    assert "event=replica.snapshot_requested" in stage.system.log("delivery")
    seen = len(since.arrivals)
    receipt = await stage.published("older.registry", "2")
    await until(lambda: receipt.event_id in before.accepted(), PATIENCE_S, "an event for the subscription that is left")
    assert len(since.arrivals) == seen


async def test_a_registry_that_is_put_back_and_changed_as_often_is_taken_as_it_is_now(own_stage: Stage) -> None:
    """The revision is the same as before: the ids of the changes tell the two histories apart, from the first event on."""
    stage = own_stage
    before, gone, there = await stage.subscribed("other.registry"), stage.receiver.endpoint("gone"), stage.receiver.endpoint("there")
    copy = await _copied(stage, "subscription")
    await eventually(lambda: stage.consumer.subscribe(there, ["other.registry"]))
    other = await _copied(stage, "subscription", as_name="other")
    await _restored(stage, "subscription", copy)
    await eventually(lambda: stage.consumer.subscribe(gone, ["other.registry"]))
    first = await stage.published("other.registry", "1")
    await until(lambda: first.event_id in gone.accepted() & before.accepted(), PATIENCE_S, "an event for the subscriptions of then")
    await _restored(stage, "subscription", other)
    second = await stage.published("other.registry", "2")
    await until(lambda: second.event_id in there.accepted() & before.accepted(), PATIENCE_S, "an event for the subscriptions of now")
    await stage.in_state("other.registry", pb.DELIVERY_STATE_DELIVERED, 4)
    assert len(gone.arrivals) == 1
