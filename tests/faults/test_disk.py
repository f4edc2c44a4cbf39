"""Rows 8 and 9: a service recovers from a full disk and stops on a failing disk; neither ever acknowledges what is not stored."""

import asyncio
import errno
import random

import pytest
from hooktide.delivery.v1 import delivery_pb2 as pb

from services.runtime.errors import Reason
from tests.faults.faulty_system import Stage, kill_at_once, refused
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


async def test_with_its_disk_full_ingest_refuses_events_and_heals(stage: Stage) -> None:
    endpoint = await stage.subscribed("disk.full.ingest")
    before = await stage.publish("disk.full.ingest", "before")
    stage.control("ingest").fail_writes(errno.ENOSPC)
    failure = await refused(stage.publish("disk.full.ingest", "refused"))
    assert failure.reason is Reason.STORAGE_FULL
    assert failure.retry_after_s is not None
    refusals = stage.control("ingest").refused
    patient = asyncio.ensure_future(_emit(stage, "disk.full.ingest"))
    await until(lambda: stage.control("ingest").refused > refusals, PATIENCE_S, "the emitter has met the full disk")
    assert not patient.done()
    assert await stage.degraded("ingest") == "new events are refused: the disk is full"
    stage.control("ingest").restore()
    after = await patient
    assert await stage.degraded("ingest") == ""
    await until(lambda: endpoint.accepted() == {before.event_id, after}, PATIENCE_S, "what was acknowledged arrives")
    assert {record.event_id for record in await stage.logged("disk.full.ingest")} == endpoint.accepted()


async def _emit(stage: Stage, event_type: str) -> str:
    async with stage.system.emitter(timeout=30.0) as emitter:
        return (await emitter.emit(type=event_type, source="/shop", data={})).event_id


async def test_with_its_disk_full_delivery_sends_nothing_until_it_can_record_again(stage: Stage) -> None:
    """An attempt that was under way when delivery met the full disk is sent once: it is recorded as soon as there is room."""
    endpoint = await stage.subscribed("disk.full.delivery")
    control = stage.control("delivery")
    control.fail_writes(errno.ENOSPC)
    first = await stage.publish("disk.full.delivery", "first")
    await until(lambda: control.refused > 0, PATIENCE_S, "a flush has met the full disk")
    await until_so(lambda: stage.not_ready("delivery"), PATIENCE_S, "delivery says that it cannot record")
    await until_so(lambda: stage.degraded("gateway"), PATIENCE_S, "the gateway says so as well")
    held = [await stage.publish("disk.full.delivery", f"held {number}") for number in range(5)]
    refusals = control.refused
    await until(lambda: control.refused > refusals + 1, PATIENCE_S, "it keeps trying")
    assert endpoint.begun <= 1
    assert {arrival.event_id for arrival in endpoint.arrivals} <= {first.event_id}
    control.restore()
    everything = {receipt.event_id for receipt in (first, *held)}
    await until(lambda: endpoint.accepted() == everything, PATIENCE_S, "all of them")
    await stage.in_state("disk.full.delivery", DELIVERED, len(everything))
    assert len(endpoint.arrivals) == len(everything)
    assert await stage.not_ready("delivery") == ""


async def test_with_its_disk_full_the_registry_refuses_changes_and_heals(stage: Stage) -> None:
    endpoint = stage.receiver.endpoint("disk.full.registry")
    body = {"sink": endpoint.url, "types": ["disk.full.registry"]}
    stage.control("subscription").fail_writes(errno.ENOSPC)
    status, problem = await stage.system.call("POST", "/v1/subscriptions", stage.consumer.key, body)
    assert (status, problem["reason"]) == (503, "STORAGE_FULL"), problem
    stage.control("subscription").restore()
    endpoint = await stage.subscribed("disk.full.registry")
    receipt = await stage.published("disk.full.registry", "1")
    await until(lambda: endpoint.accepted() == {receipt.event_id}, PATIENCE_S, "an event for the new subscription")


@pytest.mark.parametrize("failing", FAILING)
async def test_a_disk_that_fails_ends_ingest_before_anything_is_acknowledged(stage: Stage, failing: str) -> None:
    """After a new start everything acknowledged survives a loss of power, although a failed sync leaves pages that are not on disk."""
    event_type = f"disk.fails.ingest.{failing}"
    before = await stage.publish(event_type, "before")
    how, number = FAILING[failing]
    getattr(stage.control("ingest"), how)(number)
    failure = await refused(stage.publish(event_type, "unknown"))
    assert failure.reason is Reason.UNAVAILABLE
    assert await stage.system.ended("ingest") == 1
    stage.control("ingest").restore()
    await stage.system.restart("ingest")
    after = [await stage.publish(event_type, own_id) for own_id in ("unknown", "after")]
    if how == "fail_syncs":
        kill_at_once(stage.system)
        lose_power(stage.told, stage.system.data_dir, kept=0.0, rng=random.Random(1))
        for name in SERVICES:
            await stage.system.restart(name)
    logged = [record.event_id for record in await stage.logged(event_type)]
    assert logged == [after[1].event_id, after[0].event_id, before.event_id]
    assert not after[1].duplicate


@pytest.mark.parametrize("failing", FAILING)
async def test_a_disk_that_fails_ends_delivery_and_nothing_more_is_sent(stage: Stage, failing: str) -> None:
    event_type = f"disk.fails.delivery.{failing}"
    endpoint = await stage.subscribed(event_type)
    how, number = FAILING[failing]
    getattr(stage.control("delivery"), how)(number)
    receipts = [await stage.publish(event_type, "first")]
    assert await stage.system.ended("delivery") == 1
    seen = endpoint.begun
    assert seen <= 1
    receipts.append(await stage.publish(event_type, "second"))
    stage.control("delivery").restore()
    await stage.system.restart("delivery")
    await until(lambda: endpoint.accepted() == {receipt.event_id for receipt in receipts}, PATIENCE_S, "both")
    await stage.in_state(event_type, DELIVERED, 2)
    assert len(endpoint.arrivals) <= 2 + seen


@pytest.mark.parametrize("failing", FAILING)
async def test_a_disk_that_fails_ends_the_registry_and_no_subscription_is_promised(stage: Stage, failing: str) -> None:
    event_type = f"disk.fails.registry.{failing}"
    endpoint = stage.receiver.endpoint(event_type)
    body = {"sink": endpoint.url, "types": [event_type]}
    how, number = FAILING[failing]
    getattr(stage.control("subscription"), how)(number)
    status, problem = await stage.system.call("POST", "/v1/subscriptions", stage.consumer.key, body)
    assert (status, problem["reason"]) == (503, "UNAVAILABLE")
    assert await stage.system.ended("subscription") == 1
    stage.control("subscription").restore()
    await stage.system.restart("subscription")
    endpoint = await eventually(lambda: stage.subscribed(event_type))
    receipt = await stage.published(event_type, "1")
    await until(lambda: receipt.event_id in endpoint.accepted(), PATIENCE_S, "the event")
