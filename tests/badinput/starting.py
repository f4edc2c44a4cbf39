"""Starting: starts one service in this process, or returns the line with which the service refuses to start."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from gateway.app import running as running_gateway
from gateway.listener import HttpLimits
from services.delivery.app import running as running_delivery
from services.ingest.app import running as running_ingest
from services.runtime.configuration.settings import DeliverySettings, GatewaySettings, IngestSettings, SubscriptionSettings
from services.runtime.configuration.settings_reader import read_settings
from services.runtime.service_process import Addresses, ServiceProcess, StartError
from services.subscription.app import running as running_subscription

TOKEN = "hts_a-token-for-these-tests-only"


def environ_of(folder: Path, **variables: str) -> dict[str, str]:
    """Return the variables that every service needs, with free ports."""
    listen = {f"HOOKTIDE_{name}_{which}": "127.0.0.1:0" for name in ("SUBSCRIPTION", "INGEST", "DELIVERY", "GATEWAY") for which in _LISTENS}
    shared = {"HOOKTIDE_DATA_DIR": str(folder), "HOOKTIDE_SERVICE_TOKEN": TOKEN, "HOOKTIDE_SECRET_KEY": "k1:" + "A" * 43 + "="}
    return {**shared, **listen, **variables}


_LISTENS = ("LISTEN", "ADMIN_LISTEN")
Start = Callable[[dict[str, str]], contextlib.AbstractAsyncContextManager[Addresses]]
SERVICES: dict[str, Start] = {
    "subscription": lambda environ: running_subscription(read_settings(SubscriptionSettings, environ), ServiceProcess("subscription")),
    "ingest": lambda environ: running_ingest(read_settings(IngestSettings, environ), ServiceProcess("ingest")),
    "delivery": lambda environ: running_delivery(read_settings(DeliverySettings, environ), ServiceProcess("delivery")),
    "gateway": lambda environ: running_gateway(read_settings(GatewaySettings, environ), ServiceProcess("gateway"), HttpLimits()),
}
STORING = ("subscription", "ingest", "delivery")


@contextlib.asynccontextmanager
async def started(service: str, folder: Path, **variables: str) -> AsyncIterator[Addresses]:
    """Run a service in this process; the services that it calls need not run."""
    async with SERVICES[service](environ_of(folder, **variables)) as addresses:
        yield addresses


async def refusal(service: str, folder: Path, **variables: str) -> str:
    """Return the line with which a service ends instead of starting."""
    with pytest.raises(StartError) as caught:
        async with asyncio.timeout(60), started(service, folder, **variables):
            pass
    text = str(caught.value)
    assert "\n" not in text
    assert "Error" not in text
    return text
