"""Main: the composition root, the only module that knows every service.

Each service is imported by the function that runs it, so a process loads only its own service.
"""

from typing import TypeVar

from services.cli.app import run_app
from services.cli.composition import Composition, FirstKeys
from services.runtime.configuration.common_settings import Settings
from services.runtime.configuration.settings import DeliverySettings, GatewaySettings, IngestSettings, SubscriptionSettings
from services.runtime.configuration.settings_reader import read_settings
from services.runtime.logs import configure_logs
from services.runtime.rpc.log_lines import capture_grpc_lines
from services.runtime.service_process import ServiceProcess, serve_until_stopped

_Kind = TypeVar("_Kind", bound=Settings)


def _set_up(service: str, kind: type[_Kind]) -> _Kind:
    settings = read_settings(kind)
    capture_grpc_lines()
    configure_logs(service, settings.log_level)
    return settings


async def _subscription(process: ServiceProcess) -> None:
    settings = _set_up("subscription", SubscriptionSettings)
    from services.subscription.app import running  # noqa: PLC0415 - only where it is run

    await serve_until_stopped(running(settings, process), process)


async def _ingest(process: ServiceProcess) -> None:
    settings = _set_up("ingest", IngestSettings)
    from services.ingest.app import running  # noqa: PLC0415 - only where it is run

    await serve_until_stopped(running(settings, process), process)


async def _delivery(process: ServiceProcess) -> None:
    settings = _set_up("delivery", DeliverySettings)
    if process.seat is None and settings.delivery_workers > 1:
        from services.delivery.parent.app import running as parent_running  # noqa: PLC0415 - only where it is run

        await serve_until_stopped(parent_running(settings, process), process)
        return
    from services.delivery.app import running  # noqa: PLC0415 - only where it is run

    await serve_until_stopped(running(settings, process), process)


async def _gateway(process: ServiceProcess) -> None:
    settings = _set_up("gateway", GatewaySettings)
    from gateway.app import running  # noqa: PLC0415 - only where it is run

    await serve_until_stopped(running(settings, process), process)


def _bootstrap(settings: SubscriptionSettings) -> FirstKeys | None:
    from services.subscription.bootstrap import bootstrap  # noqa: PLC0415 - only where it is run

    return bootstrap(settings)


COMPOSITION = Composition(
    services={"subscription": _subscription, "ingest": _ingest, "delivery": _delivery, "gateway": _gateway},
    bootstrap=_bootstrap,
)


def main() -> None:
    """Run the `hooktide` command."""
    run_app(COMPOSITION)


if __name__ == "__main__":
    main()
