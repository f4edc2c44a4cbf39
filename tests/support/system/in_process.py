"""In process: all four services in this process, with settings from the environment, and a receiver of webhooks."""

import asyncio
import contextlib
import functools
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest
from hooktide.delivery.v1 import delivery_pb2, delivery_pb2_grpc
from prometheus_client import REGISTRY

from gateway.app import running as running_gateway
from services.cli.webhook_receiver import Webhook, receiving
from services.delivery.app import running as running_delivery
from services.delivery.parent.app import running as running_parent
from services.ingest.app import running as running_ingest
from services.runtime.configuration.settings import DeliverySettings, GatewaySettings, IngestSettings, SubscriptionSettings
from services.runtime.configuration.settings_reader import read_settings
from services.runtime.rpc.channel_and_server import open_channel, service_metadata
from services.runtime.service_process import Addresses, ServiceProcess
from services.subscription.app import running as running_subscription
from services.subscription.bootstrap import BootstrapKeys, bootstrap
from tests.support.system.registry import SECRET_KEY

SERVICES = ("subscription", "ingest", "delivery", "gateway")
WITHIN_S = 60.0


@dataclass
class System:
    """The running services, and the webhooks that the receiver got."""

    keys: BootstrapKeys
    sink: str = ""
    addresses: dict[str, Addresses] = field(default_factory=dict)
    processes: dict[str, ServiceProcess] = field(default_factory=dict)
    webhooks: "asyncio.Queue[Webhook]" = field(default_factory=asyncio.Queue)

    async def reload(self, *services: str) -> None:
        """Let services (by default all) read their settings again, and wait until they have."""
        for name in services or SERVICES:
            before = reloads("applied"), reloads("refused")
            self.processes[name].reload_asked.set()
            async with asyncio.timeout(WITHIN_S):
                while (reloads("applied"), reloads("refused")) == before:  # noqa: ASYNC110 - a metric tells of nothing by itself
                    await asyncio.sleep(0.01)
            assert reloads("refused") == before[1]

    async def webhook(self) -> Webhook:
        """Return the next webhook."""
        async with asyncio.timeout(WITHIN_S):
            return await self.webhooks.get()


def reloads(outcome: str) -> float:
    """Return how many reloads in this process had an outcome."""
    return REGISTRY.get_sample_value("hooktide_reloads_total", {"outcome": outcome}) or 0.0


@contextlib.asynccontextmanager
async def running_system(monkeypatch: pytest.MonkeyPatch, folder: Path, **environ: str | Path) -> AsyncIterator[System]:
    """Run everything with these settings in the process's own environment, where a reload reads them again."""
    for name in [name for name in os.environ if name.startswith("HOOKTIDE_")]:
        monkeypatch.delenv(name)
    listen = {f"{name.upper()}_{which}LISTEN": "127.0.0.1:0" for name in SERVICES for which in ("", "ADMIN_")}
    for name, value in (listen | {"DATA_DIR": folder, "SECRET_KEY": SECRET_KEY, "SINK_ALLOW": "http,127.0.0.0/8"} | environ).items():
        monkeypatch.setenv(f"HOOKTIDE_{name}", str(value))
    keys = await asyncio.to_thread(bootstrap, read_settings(SubscriptionSettings))
    assert keys is not None
    system = System(keys)
    starts: dict[str, Callable[[ServiceProcess], AbstractAsyncContextManager[Addresses]]] = {
        "subscription": lambda process: running_subscription(read_settings(SubscriptionSettings), process),
        "ingest": lambda process: running_ingest(read_settings(IngestSettings), process),
        "delivery": _running_delivery,
        "gateway": lambda process: running_gateway(read_settings(GatewaySettings), process),
    }
    async with contextlib.AsyncExitStack() as stack:
        system.sink = await stack.enter_async_context(receiving(lambda _path: (), functools.partial(_take, system.webhooks)))
        for name in SERVICES:
            process = system.processes[name] = ServiceProcess(name)
            system.addresses[name] = await stack.enter_async_context(starts[name](process))
            if name != "gateway":
                monkeypatch.setenv(f"HOOKTIDE_{name.upper()}_TARGET", system.addresses[name].listen)
        yield system


def _running_delivery(process: ServiceProcess) -> AbstractAsyncContextManager[Addresses]:
    """Run one delivery worker here, or the parent of several, which run as processes of their own."""
    settings = read_settings(DeliverySettings)
    return running_delivery(settings, process) if settings.delivery_workers == 1 else running_parent(settings, process)


def _take(webhooks: "asyncio.Queue[Webhook]", webhook: Webhook) -> int:
    webhooks.put_nowait(webhook)
    return 200


async def accepted(delivery: str, token: str) -> bool:
    """Return whether the delivery service accepts a token."""
    async with open_channel(delivery) as channel:
        stub = delivery_pb2_grpc.DeliveryServiceStub(channel)
        try:
            await stub.ListDeliveries(delivery_pb2.ListDeliveriesRequest(consumer_id="*"), metadata=service_metadata(token), timeout=20)
        except grpc.aio.AioRpcError:
            return False
    return True
