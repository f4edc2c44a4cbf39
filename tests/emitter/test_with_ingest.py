"""Emitter with ingest: the real services keep every promise of the tests' own service."""

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import hooktide
import pytest

from services.ingest import app as ingest
from services.runtime.configuration.settings import IngestSettings, SubscriptionSettings
from services.runtime.service_process import ServiceProcess
from services.subscription import app as subscription
from services.subscription.bootstrap import BootstrapKeys, bootstrap

TOKEN = "hts_" + "t" * 40


@dataclass
class Services:
    """A running registry, and an ingest service that tests can stop and start again at the same address."""

    keys: BootstrapKeys
    settings: IngestSettings
    ingest: contextlib.AsyncExitStack

    @property
    def target(self) -> str:
        """The address to publish to."""
        return self.settings.ingest_listen

    async def start_ingest(self) -> None:
        """Start ingest, always on the port of the first start."""
        addresses = await self.ingest.enter_async_context(ingest.running(self.settings, ServiceProcess("ingest")))
        self.settings = self.settings.model_copy(update={"ingest_listen": addresses.listen})

    async def stop_ingest(self) -> None:
        """Stop ingest."""
        await self.ingest.aclose()


@pytest.fixture
async def services(tmp_path: Path) -> AsyncIterator[Services]:
    """The registry and ingest."""
    registry = SubscriptionSettings(
        data_dir=tmp_path,
        service_token=TOKEN,
        secret_key="k1:" + base64.b64encode(bytes(32)).decode(),
        subscription_listen="127.0.0.1:0",
        subscription_admin_listen="127.0.0.1:0",
    )
    keys = bootstrap(registry)
    assert keys is not None
    async with subscription.running(registry, ServiceProcess("subscription")) as addresses, contextlib.AsyncExitStack() as stack:
        settings = IngestSettings(
            data_dir=tmp_path,
            service_token=TOKEN,
            ingest_listen="127.0.0.1:0",
            ingest_admin_listen="127.0.0.1:0",
            subscription_target=addresses.listen,
        )
        services = Services(keys, settings, stack)
        await services.start_ingest()
        yield services


async def test_an_event_is_durable_once_and_known_again(services: Services) -> None:
    async with hooktide.Emitter(services.target, key=services.keys.emitter, timeout=20) as emitter:
        first = await emitter.emit(type="order.created", source="/shop", subject="7", data={"id": 7})
        assert first.event_id.startswith("evt_")
        assert not first.duplicate
        with pytest.raises(hooktide.InvalidEvent) as invalid:
            await emitter.emit(type="order.created", source="/shop", id="x" * 300)
        assert invalid.value.event is not None
        invalid.value.event.id = "short"
        stored = await emitter.emit_event(invalid.value.event)
        again = await emitter.emit_event(invalid.value.event)
        assert (again.event_id, again.position, again.duplicate) == (stored.event_id, stored.position, True)
        with pytest.raises(hooktide.EventConflict):
            await emitter.emit(type="order.paid", source="/shop", id="short")


async def test_every_kind_of_value_passes_validation(services: Services) -> None:
    async with hooktide.Emitter(services.target, key=services.keys.emitter, timeout=20) as emitter:
        await emitter.emit(
            type="order.created",
            source="/shop",
            subject="7",
            data=b"\x00",
            partitionkey="p",
            audience=services.keys.consumer_id,
            extensions={"flag": True, "number": -1, "text": "x", "raw": b"\x01", "dataschema": "https://schemas.example/order"},
        )
        await emitter.emit(type="order.created", source="/shop", data="<a/>", datacontenttype="application/xml")


@pytest.mark.parametrize("key", ["consumer", "unknown"])
async def test_other_keys_may_not_publish(services: Services, key: str) -> None:
    wrong = services.keys.consumer if key == "consumer" else "hkt_unknown"
    async with hooktide.Emitter(services.target, key=wrong, timeout=20) as emitter:
        emits = (emitter.emit(type="order.created", source="/shop") for _ in range(100))
        ends = await asyncio.gather(*emits, return_exceptions=True)
    assert {type(end) for end in ends} == {hooktide.NotAuthorized}


async def test_nothing_is_lost_or_out_of_order_over_restarts_of_ingest(services: Services) -> None:
    """Fifty callers emit one event after another, each about its own subject, while ingest is stopped and started three times."""
    done = asyncio.Event()

    async def caller(emitter: hooktide.Emitter, subject: str) -> list[hooktide.Receipt]:
        receipts: list[hooktide.Receipt] = []
        while not done.is_set() or len(receipts) < 20:
            receipts.append(await emitter.emit(type="order.changed", source="/shop", subject=subject, data={"number": len(receipts)}))
        return receipts

    async with (
        hooktide.Emitter(services.target, key=services.keys.emitter, timeout=30) as emitter,
        asyncio.TaskGroup() as group,
    ):
        callers = [group.create_task(caller(emitter, f"s{number}")) for number in range(50)]
        for _ in range(3):
            await emitter.emit(type="order.changed", source="/shop")
            await services.stop_ingest()
            await services.start_ingest()
        await emitter.emit(type="order.changed", source="/shop")
        done.set()
    results = [task.result() for task in callers]
    assert all(len({receipt.partition for receipt in receipts}) == 1 for receipts in results)
    positions = [[receipt.position for receipt in receipts] for receipts in results]
    assert all(mine == sorted(set(mine)) for mine in positions)
    everything = [receipt.event_id for receipts in results for receipt in receipts]
    assert len(set(everything)) == len(everything)
