"""Openers: the measured transports by name, each opened as the delivery service would open it."""

from contextlib import AbstractAsyncContextManager

from services.delivery.app import OpenTransport, open_transport
from services.delivery.transport.protocol import Transport
from services.egress.policy import EgressPolicy
from services.runtime.configuration.reload import Reloadable
from services.runtime.configuration.settings import DeliverySettings

PRODUCT, YARDSTICK = "http", "aiohttp"


def opener(name: str) -> OpenTransport:
    """Return the function that opens a transport."""
    return {PRODUCT: open_transport, YARDSTICK: _aiohttp}[name]


def _aiohttp(policy: EgressPolicy, reloadable: Reloadable[DeliverySettings]) -> AbstractAsyncContextManager[Transport]:
    from tests.bench.transport_aiohttp import open_aiohttp_transport  # noqa: PLC0415 - only where it is measured

    settings = reloadable.settings
    return open_aiohttp_transport(
        policy,
        timeout_s=settings.delivery_attempt_timeout_seconds,
        connect_timeout_s=settings.delivery_connect_timeout_seconds,
        connections_max=settings.delivery_in_flight_max,
    )
