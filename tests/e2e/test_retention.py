"""Retention in real services, with limits of seconds and megabytes."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from hooktide.ingest.v1 import ingest_pb2

from services.delivery.ledger.protocol import Flush
from services.delivery.ledger.rows import DoneRow, done_row
from services.delivery.ledger.sqlite.day_tables import day_of
from services.delivery.ledger.sqlite.ledger import open_ledger
from services.delivery.model import State
from services.runtime.errors import Failure, Reason, failure_from_rpc
from services.runtime.rpc.channel_and_server import service_metadata
from tests.delivery.ledger.deliveries import delivery
from tests.support.consumers import Consumer, new_consumer
from tests.support.numbered_events import numbered_event, publish_numbered
from tests.support.service_databases import number, pages_in_use, rows, size_on_disk
from tests.support.service_spawner import shared_spawner
from tests.support.system.processes import System, running_system
from tests.support.waiting import PATIENCE_S, until
from tests.support.webhook_receivers.order_receiver import OrderReceiver, running_order_receiver
from tests.support.webhook_receivers.receiver import Receiver

_RETENTION_S = 1.5
_LEDGER_BYTES_MAX = 1024 * 1024
_MB = 1024 * 1024
_DAY_MS = 86_400_000
_SETTINGS = {
    "HOOKTIDE_INGEST_RETENTION_HOURS": str(_RETENTION_S / 3600),
    "HOOKTIDE_DELIVERY_EXPIRY_HOURS": "168",
    "HOOKTIDE_DELIVERY_EXPIRY_BEYOND_LOG": "true",
    "HOOKTIDE_HOUSEKEEPING_SECONDS": "0.2",
}


@pytest_asyncio.fixture(scope="module")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    async with running_system(tmp_path_factory.mktemp("retention"), _SETTINGS, spawn=shared_spawner().spawn) as running:
        yield running


@pytest_asyncio.fixture
async def orders() -> AsyncIterator[OrderReceiver]:
    async with running_order_receiver() as running:
        yield running


def log(system: System) -> Path:
    return system.data_dir / "ingest.db"


def ledger(system: System) -> Path:
    return system.data_dir / "delivery.db"


async def delivered(consumer: Consumer, event_id: str) -> dict[str, object]:
    """Wait until the delivery of an event is recorded as delivered, and return it."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            found = await consumer.deliveries(event=event_id)
            if [each["state"] for each in found] == ["delivered"]:
                return found[0]
            await asyncio.sleep(0.05)


async def trimmed(system: System) -> None:
    """Wait until the log is empty."""
    await until(lambda: number(log(system), "SELECT count(*) FROM events") == 0, PATIENCE_S, "everything to be trimmed")


@contextlib.asynccontextmanager
async def subscribed(system: System, *urls: str) -> AsyncIterator[Consumer]:
    """Subscribe endpoints for the length of a test; afterwards nothing is left to deliver to them."""
    consumer = await new_consumer(system, "retention")
    made = [await system.call("POST", "/v1/subscriptions", consumer.key, {"sink": url, "types": ["bounds.*"]}) for url in urls]
    assert {status for status, _ in made} == {201}, made
    try:
        yield consumer
    finally:
        for _, subscription in made:
            await consumer.unsubscribe(str(subscription["id"]))


@contextlib.asynccontextmanager
async def restarted(system: System, service: str, **settings: str) -> AsyncIterator[None]:
    """Run a service with other settings within a block; it is killed and started at both ends."""
    before = dict(system.settings)
    system.settings |= settings
    try:
        await system.kill_and_restart(service)
        yield
    finally:
        system.settings.clear()
        system.settings |= before
        await system.kill_and_restart(service)


async def test_unfinished_deliveries_outlive_the_log(system: System, receiver: Receiver) -> None:
    """The ledger copies their events once, before the log drops them; the body stays the same, and the copy goes when it is not needed."""
    endpoints = [receiver.endpoint("one"), receiver.endpoint("two")]
    for endpoint in endpoints:
        endpoint.status = lambda: 500
    async with subscribed(system, *(endpoint.url for endpoint in endpoints)) as consumer:
        receipts = await publish_numbered(system, 60)
        event_ids = {receipt.event_id for receipt in receipts}
        await until(lambda: all(endpoint.arrivals for endpoint in endpoints), PATIENCE_S, "attempts that fail")
        await trimmed(system)
        status, _ = await system.call("GET", f"/v1/events/{receipts[0].event_id}", consumer.key)
        assert status == 404
        assert number(ledger(system), "SELECT count(*) FROM payloads") == 60

        for endpoint in endpoints:
            endpoint.status = lambda: 200
        await until(lambda: all(endpoint.accepted() == event_ids for endpoint in endpoints), PATIENCE_S, "all that waited")
        await until(lambda: number(ledger(system), "SELECT count(*) FROM payloads") == 0, PATIENCE_S, "copies that nobody needs to go")
    bodies: dict[str, set[bytes]] = {}
    for arrival in (each for endpoint in endpoints for each in endpoint.arrivals):
        bodies.setdefault(arrival.event_id, set()).add(arrival.body)
    assert all(len(found) == 1 for found in bodies.values())
    assert {arrival.status for endpoint in endpoints for arrival in endpoint.arrivals} == {500, 200}


async def test_nothing_is_trimmed_that_delivery_has_not_released(system: System, orders: OrderReceiver) -> None:
    """While delivery is down the log keeps all events; after it has returned and delivered them, they go and their space comes back."""
    async with subscribed(system, orders.url("late")) as consumer:
        await trimmed(system)
        system.kill("delivery")
        receipts = await publish_numbered(system, 3000, size_bytes=2000, run="late-")
        published = time.monotonic()
        while time.monotonic() < published + 2 * _RETENTION_S:
            assert number(log(system), "SELECT count(*) FROM events") == 3000
            await asyncio.sleep(0.2)
        before = size_on_disk(log(system))
        assert before > 6 * _MB
        await system.restart("delivery")
        await orders.counted("late", 3000, PATIENCE_S)
        await trimmed(system)
        await until(lambda: size_on_disk(log(system)) < before / 10, PATIENCE_S, f"the log's files to shrink from {before} bytes")
        await system.found_again()
        await delivered(consumer, receipts[0].event_id)


async def test_a_full_log_refuses_events_while_deliveries_go_on_and_takes_them_again_after_a_trim(
    system: System, orders: OrderReceiver
) -> None:
    async with subscribed(system, orders.url("full")):
        await trimmed(system)
        orders.down()
        async with restarted(system, "ingest", HOOKTIDE_INGEST_LOG_BYTES_MAX=str(2 * _MB), HOOKTIDE_INGEST_RETENTION_HOURS="1"):
            accepted = 0
            while (refused := await _publish_one(system, accepted)) is None:
                accepted += 1
            assert accepted > 300
            assert (refused.reason, refused.reason.code) == (Reason.LOG_FULL, grpc.StatusCode.RESOURCE_EXHAUSTED)
            assert refused.retry_after_s == 30.0
            # Accepted events are delivered while the log is full.
            await orders.up()
            await orders.counted("full", accepted, PATIENCE_S)
            assert await _publish_one(system, accepted) is not None
            # The failing sink has made a notice.
            assert number(log(system), "SELECT count(*) FROM events WHERE type NOT LIKE 'hooktide.%'") == accepted
        async with restarted(system, "ingest", HOOKTIDE_INGEST_LOG_BYTES_MAX=str(2 * _MB)):
            await trimmed(system)
            assert await _publish_one(system, accepted) is None
            await orders.counted("full", accepted + 1, PATIENCE_S)


async def _publish_one(system: System, number: int) -> Failure | None:
    """Publish an event of 2 KB; return the failure if it is refused."""
    request = ingest_pb2.PublishRequest(event=numbered_event(number, 2000, run="full-"))
    try:
        await system.ingest.Publish(request, metadata=service_metadata(system.first.emitter), wait_for_ready=True)
    except grpc.aio.AioRpcError as error:
        return failure_from_rpc(error)
    return None


async def test_finished_deliveries_go_after_their_age_and_their_space_comes_back(system: System, orders: OrderReceiver) -> None:
    """20 000 rows of days past their retention are dropped with their tables; the rows of yesterday and today stay."""
    async with subscribed(system, orders.url("aged")) as consumer:
        (receipt,) = await publish_numbered(system, 1, run="aged-")
        await orders.counted("aged", 1, PATIENCE_S)
        kept = await delivered(consumer, receipt.event_id)
        system.kill("delivery")
        now_ms = time.time_ns() // 1_000_000
        async with open_ledger(ledger(system)) as opened:
            await opened.take_lease("a test")
            for start in range(0, 20_000, 1000):
                old = [_done(index, now_ms - (10 + index % 3) * _DAY_MS) for index in range(start, start + 1000)]
                await opened.flush(Flush(finished=old))
            await opened.flush(Flush(finished=[_done(20_000, now_ms - _DAY_MS)]))
        before = size_on_disk(ledger(system))
        assert before > 5 * _MB
        old_days = {f"done_{day_of(now_ms - age * _DAY_MS)}" for age in (10, 11, 12)}
        # The service trusts a clock after a tenth of the shortest window that the clock measures; by default this is a minute.
        async with restarted(system, "delivery", HOOKTIDE_DELIVERY_EXPIRY_HOURS=str(20 / 3600)):
            await until(lambda: old_days.isdisjoint(days(system)), PATIENCE_S, "old days to go")
            await until(lambda: size_on_disk(ledger(system)) < before / 4, PATIENCE_S, f"the ledger's files to shrink from {before} bytes")
            assert f"done_{day_of(now_ms - _DAY_MS)}" in days(system)
            await system.found_again()
            status, shown = await system.call("GET", f"/v1/deliveries/{kept['id']}", consumer.key)
            assert (status, shown["state"]) == (200, "delivered")


def days(system: System) -> list[object]:
    """Return the names of the tables of finished deliveries."""
    return [name for (name,) in rows(ledger(system), "SELECT name FROM sqlite_master WHERE type = 'table' AND name GLOB 'done_2*'")]


def _done(number: int, finished_ms: int) -> DoneRow:
    return done_row(delivery(number, state=State.DELIVERED, finished_ms=finished_ms))


async def test_a_ledger_beyond_its_size_lets_the_oldest_finished_deliveries_go(system: System, orders: OrderReceiver) -> None:
    """The newest stay readable with their attempts; the file keeps within the limit plus its free quarter."""
    async with (
        restarted(system, "delivery", HOOKTIDE_DELIVERY_LEDGER_BYTES_MAX=str(_LEDGER_BYTES_MAX)),
        subscribed(system, orders.url("many")) as consumer,
    ):
        receipts = await publish_numbered(system, 6000, size_bytes=100, run="many-")
        await orders.counted("many", 6000, PATIENCE_S)
        # Once the newest delivery is recorded, all are, and together they are beyond the limit.
        newest = await delivered(consumer, receipts[-1].event_id)
        await until(lambda: pages_in_use(ledger(system)) <= _LEDGER_BYTES_MAX, PATIENCE_S, "the ledger to keep within its limit")
        await until(lambda: ledger(system).stat().st_size < 1.5 * _LEDGER_BYTES_MAX, PATIENCE_S, "the ledger's file to shrink")
        assert await consumer.deliveries(event=receipts[0].event_id) == []
        status, shown = await system.call("GET", f"/v1/deliveries/{newest['id']}", consumer.key)
        attempts = shown["attempts"]
        assert isinstance(attempts, list)
        assert (status, len(attempts)) == (200, 1)
