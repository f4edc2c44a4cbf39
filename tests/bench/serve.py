"""Runs one service, like `python -m services`, on the one core that BENCH_CORE names.

Where BENCH_TRANSPORT is `aiohttp`, webhooks leave by the yardstick in place of the product's transport.
"""

import os
from contextlib import AbstractAsyncContextManager
from dataclasses import replace

from services.__main__ import COMPOSITION
from services.cli.app import run_app
from services.delivery.transport import Transport
from services.egress.policy import EgressPolicy
from services.runtime.lifecycle import Lifecycle
from services.runtime.logs import configure_logs
from services.runtime.settings import DeliverySettings, read_settings


def _by_aiohttp(policy: EgressPolicy, settings: DeliverySettings) -> AbstractAsyncContextManager[Transport]:
    from tests.bench.transport_aiohttp import open_aiohttp_transport  # noqa: PLC0415 - only where it is measured

    return open_aiohttp_transport(
        policy,
        timeout_s=settings.delivery_attempt_timeout_seconds,
        connect_timeout_s=settings.delivery_connect_timeout_seconds,
        connections_max=settings.delivery_in_flight_max,
    )


async def _delivery(lifecycle: Lifecycle) -> None:
    settings = read_settings(DeliverySettings)
    configure_logs("delivery", settings.log_level)
    from services.delivery.app import serve  # noqa: PLC0415 - only where it is run

    await serve(settings, lifecycle, _by_aiohttp)


if __name__ == "__main__":
    os.sched_setaffinity(0, {int(os.environ["BENCH_CORE"])})
    yardstick = os.environ.get("BENCH_TRANSPORT") == "aiohttp"
    run_app(replace(COMPOSITION, services={**COMPOSITION.services, "delivery": _delivery}) if yardstick else COMPOSITION)
