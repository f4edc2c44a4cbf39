"""Default ports: the ports on which the services listen unless a setting or an option names another."""

from collections.abc import Mapping

LOOPBACK = "127.0.0.1"
PORTS: Mapping[str, int] = {"gateway": 8080, "subscription": 50051, "ingest": 50052, "delivery": 50053}
"""By service: the port of its own address."""
ADMIN_PORTS: Mapping[str, int] = {"gateway": 8081, "subscription": 9051, "ingest": 9052, "delivery": 9053}
"""By service: the port of /healthz, /readyz and /metrics."""


def default_address(service: str) -> str:
    """Return ``host:port`` of a service's own address; only this machine reaches it."""
    return f"{LOOPBACK}:{PORTS[service]}"


def default_admin_address(service: str) -> str:
    """Return ``host:port`` of a service's admin address; only this machine reaches it."""
    return f"{LOOPBACK}:{ADMIN_PORTS[service]}"
