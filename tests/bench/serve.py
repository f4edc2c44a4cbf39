"""Serve: runs one service, like `python -m services`, on the core that BENCH_CORE names, with the transport that BENCH_TRANSPORT names."""

import os
from dataclasses import replace

from services.__main__ import COMPOSITION
from services.cli.app import run_app
from services.runtime.configuration.settings import DeliverySettings
from services.runtime.configuration.settings_reader import read_settings
from services.runtime.logs import configure_logs
from services.runtime.service_process import ServiceProcess, serve_until_stopped


async def _delivery(process: ServiceProcess) -> None:
    settings = read_settings(DeliverySettings)
    if settings.delivery_workers > 1:
        await COMPOSITION.services["delivery"](process)
        return
    configure_logs("delivery", settings.log_level)
    from services.delivery.app import running  # noqa: PLC0415 - only where it is run
    from tests.bench.openers import opener  # noqa: PLC0415 - the same

    await serve_until_stopped(running(settings, process, opener(os.environ["BENCH_TRANSPORT"])), process)


if __name__ == "__main__":
    os.sched_setaffinity(0, {int(os.environ["BENCH_CORE"])})
    run_app(replace(COMPOSITION, services={**COMPOSITION.services, "delivery": _delivery}))
