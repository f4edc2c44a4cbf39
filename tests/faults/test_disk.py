"""Rows 8 and 9: a service recovers from a full disk and stops on a failing disk; neither ever acknowledges what is not stored."""

import asyncio
import errno
import random

import pytest
from hooktide.delivery.v1 import delivery_pb2 as pb

from services.runtime.errors import Reason
from tests.faults.faulty_system import FaultySystem, kill_at_once, refused
from tests.faults.shim import lose_power
from tests.support.system.processes import SERVICES
from tests.support.waiting import PATIENCE_S, until, until_so
from tests.torture.campaign import eventually

DELIVERED = pb.DELIVERY_STATE_DELIVERED
FAILING = {
    "sync-EIO": ("fail_syncs", errno.EIO),
    "sync-ENOSPC": ("fail_syncs", errno.ENOSPC),
    "write-EIO": ("fail_writes", errno.EIO),
    "write-EROFS": ("fail_writes", errno.EROFS),
}


async def test_with_its_disk_full_ingest_refuses_events_and_heals(faulty: FaultySystem) -> None:
    endpoint = await faulty.subscribed("disk.full.ingest")
    before = await faulty.publish("disk.full.ingest", "before")
    faulty.control("ingest").fail_writes(errno.ENOSPC)
    failure = await refused(faulty.publish("disk.full.ingest", "refused"))
    assert failure.reason is Reason.STORAGE_FULL
    assert failure.retry_after_s is not None
    refusals = faulty.control("ingest").refused
    patient = asyncio.ensure_future(_emit(faulty, "disk.full.ingest"))
    await until(lambda: faulty.control("ingest").refused > refusals, PATIENCE_S, "the emitter has met the full disk")
    assert not patient.done()
    assert await faulty.degraded("ingest") == "new events are refused: the disk is full"
    faulty.control("ingest").restore()
    after = await patient
    assert await faulty.degraded("ingest") == ""
    await until(lambda: endpoint.accepted() == {before.event_id, after}, PATIENCE_S, "what was acknowledged arrives")
    assert {record.event_id for record in await faulty.logged("disk.full.ingest")} == endpoint.accepted()


async def _emit(faulty: FaultySystem, event_type: str) -> str:
    async with faulty.system.emitter(timeout=30.0) as emitter:
        return (await emitter.emit(type=event_type, source="/shop", data={})).event_id


async def test_with_its_disk_full_delivery_sends_nothing_until_it_can_record_again(faulty: FaultySystem) -> None:
    """An attempt that was under way when delivery met the full disk is sent once: it is recorded as soon as there is room."""
    endpoint = await faulty.subscribed("disk.full.delivery")
    control = faulty.control("delivery")
    control.fail_writes(errno.ENOSPC)
    first = await faulty.publish("disk.full.delivery", "first")
    await until(lambda: control.refused > 0, PATIENCE_S, "a flush has met the full disk")
    await until_so(lambda: faulty.not_ready("delivery"), PATIENCE_S, "delivery says that it cannot record")
    await until_so(lambda: faulty.degraded("gateway"), PATIENCE_S, "the gateway says so as well")
    held = [await faulty.publish("disk.full.delivery", f"held {number}") for number in range(5)]
    refusals = control.refused
    await until(lambda: control.refused > refusals + 1, PATIENCE_S, "it keeps trying")
    assert endpoint.begun <= 1
    assert {arrival.event_id for arrival in endpoint.arrivals} <= {first.event_id}
    control.restore()
    everything = {receipt.event_id for receipt in (first, *held)}
    await until(lambda: endpoint.accepted() == everything, PATIENCE_S, "all of them")
    await faulty.in_state("disk.full.delivery", DELIVERED, len(everything))
    assert len(endpoint.arrivals) == len(everything)
    assert await faulty.not_ready("delivery") == ""


async def test_with_its_disk_full_the_registry_refuses_changes_and_heals(faulty: FaultySystem) -> None:
    endpoint = faulty.receiver.endpoint("disk.full.registry")
    body = {"sink": endpoint.url, "types": ["disk.full.registry"]}
    faulty.control("subscription").fail_writes(errno.ENOSPC)
    status, problem = await faulty.system.call("POST", "/v1/subscriptions", faulty.consumer.key, body)
    assert (status, problem["reason"]) == (503, "STORAGE_FULL"), problem
    faulty.control("subscription").restore()
    endpoint = await faulty.subscribed("disk.full.registry")
    receipt = await faulty.published("disk.full.registry", "1")
    await until(lambda: endpoint.accepted() == {receipt.event_id}, PATIENCE_S, "an event for the new subscription")


@pytest.mark.parametrize("failing", FAILING)
async def test_a_disk_that_fails_ends_ingest_before_anything_is_acknowledged(faulty: FaultySystem, failing: str) -> None:
    """After a new start everything acknowledged survives a loss of power, although a failed sync leaves pages that are not on disk."""
    event_type = f"disk.fails.ingest.{failing}"
    before = await faulty.publish(event_type, "before")
    how, number = FAILING[failing]
    getattr(faulty.control("ingest"), how)(number)
    failure = await refused(faulty.publish(event_type, "unknown"))
    assert failure.reason is Reason.UNAVAILABLE
    assert await faulty.system.ended("ingest") == 1
    faulty.control("ingest").restore()
    await faulty.system.restart("ingest")
    after = [await faulty.publish(event_type, own_id) for own_id in ("unknown", "after")]
    if how == "fail_syncs":
        kill_at_once(faulty.system)
        lose_power(faulty.told, faulty.system.data_dir, kept=0.0, rng=random.Random(1))
        for name in SERVICES:
            await faulty.system.restart(name)
    logged = [record.event_id for record in await faulty.logged(event_type)]
    assert logged == [after[1].event_id, after[0].event_id, before.event_id]
    assert not after[1].duplicate


@pytest.mark.parametrize("failing", FAILING)
async def test_a_disk_that_fails_ends_delivery_and_nothing_more_is_sent(faulty: FaultySystem, failing: str) -> None:
    event_type = f"disk.fails.delivery.{failing}"
    endpoint = await faulty.subscribed(event_type)
    how, number = FAILING[failing]
    getattr(faulty.control("delivery"), how)(number)
    receipts = [await faulty.publish(event_type, "first")]
    assert await faulty.system.ended("delivery") == 1
    seen = endpoint.begun
    assert seen <= 1
    receipts.append(await faulty.publish(event_type, "second"))
    faulty.control("delivery").restore()
    await faulty.system.restart("delivery")
    await until(lambda: endpoint.accepted() == {receipt.event_id for receipt in receipts}, PATIENCE_S, "both")
    await faulty.in_state(event_type, DELIVERED, 2)
    assert len(endpoint.arrivals) <= 2 + seen


@pytest.mark.parametrize("failing", FAILING)
async def test_a_disk_that_fails_ends_the_registry_and_no_subscription_is_promised(faulty: FaultySystem, failing: str) -> None:
    event_type = f"disk.fails.registry.{failing}"
    endpoint = faulty.receiver.endpoint(event_type)
    body = {"sink": endpoint.url, "types": [event_type]}
    how, number = FAILING[failing]
    getattr(faulty.control("subscription"), how)(number)
    status, problem = await faulty.system.call("POST", "/v1/subscriptions", faulty.consumer.key, body)
    assert (status, problem["reason"]) == (503, "UNAVAILABLE")
    assert await faulty.system.ended("subscription") == 1
    faulty.control("subscription").restore()
    await faulty.system.restart("subscription")
    endpoint = await eventually(lambda: faulty.subscribed(event_type))
    receipt = await faulty.published(event_type, "1")
    await until(lambda: receipt.event_id in endpoint.accepted(), PATIENCE_S, "the event")
