"""Service environment: the services, the addresses on which they listen, and their environments. Pure.

Law: a value that the user has set in the environment stays as it is. Only an option of the command line overrides it.
"""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass

from services.runtime.configuration.default_ports import ADMIN_PORTS, LOOPBACK, PORTS
from services.runtime.configuration.settings import CLIENT_VARIABLES
from services.runtime.ids import WORKERS_MAX
from services.runtime.service_process import Addresses

SERVICES = ("subscription", "ingest", "delivery", "gateway")
STOP_ORDER = ("gateway", "delivery", "ingest", "subscription")
# Which services each service calls.
CALLS: Mapping[str, tuple[str, ...]] = {
    "subscription": (),
    "ingest": ("subscription",),
    "delivery": ("subscription", "ingest"),
    "gateway": ("subscription", "ingest", "delivery"),
}
# Which service each service waits for at the first start, so that no service begins with a warning that another is away.
STARTS_AFTER: Mapping[str, str] = {"ingest": "subscription", "gateway": "subscription", "delivery": "ingest"}
SINK_ALLOW_LOCAL = "http,127.0.0.0/8,::1/128"
# The services that are called from outside; only other services call the rest.
PUBLIC = frozenset({"gateway", "ingest"})
_ANY = {"0.0.0.0": LOOPBACK, "[::]": "[::1]", "*": LOOPBACK}  # noqa: S104 - translated, never bound


AUTO = "auto"
"""In place of a number of delivery workers: as many as the cores permit."""


def delivery_workers(asked: str, cores: int) -> int:
    """Return how many delivery workers run: the number asked for, or for `AUTO` one for each core but two, and at least one.

    Raises `ValueError` for another text.
    """
    if asked == AUTO:
        return max(1, min(WORKERS_MAX, cores - 2))
    if not asked.isdecimal() or not 1 <= int(asked) <= WORKERS_MAX:
        message = f"write {AUTO}, or a number from 1 to {WORKERS_MAX}"
        raise ValueError(message)
    return int(asked)


@dataclass(frozen=True, slots=True)
class Ports:
    """The ports from the command line: `given` by service; the other services get their default port or, with `any_free`, a free one."""

    given: Mapping[str, int]
    any_free: bool = False

    def listen(self, service: str) -> int | None:
        """Return the port for a service's own address, 0 for any free port, None for the environment's address or the default."""
        return self.given.get(service, 0 if self.any_free else None)

    @property
    def admin(self) -> int | None:
        """The port for admin addresses: 0 for any free port, None for the environment's address or the default."""
        return 0 if self.any_free else None


def planned(service: str, *, host: str, ports: Ports, environ: Mapping[str, str]) -> Addresses:
    """Return the addresses of a service: from the command line, else the environment, else the defaults. Port 0 is any free port."""
    where = host if service in PUBLIC else LOOPBACK
    return Addresses(
        listen=_address(environ.get(f"HOOKTIDE_{service.upper()}_LISTEN", ""), where, ports.listen(service), PORTS[service]),
        admin=_address(environ.get(f"HOOKTIDE_{service.upper()}_ADMIN_LISTEN", ""), LOOPBACK, ports.admin, ADMIN_PORTS[service]),
    )


def _address(in_environment: str, host: str, given: int | None, default: int) -> str:
    if given is None and in_environment:
        return in_environment
    bracketed = f"[{host}]" if ":" in host and not host.startswith("[") else host
    return f"{bracketed}:{default if given is None else given}"


def is_loopback(address: str) -> bool:
    """Return whether only this machine can connect to an address."""
    host = address.rpartition(":")[0].strip("[]")
    if address.startswith("unix:") or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def sink_allow(environ: Mapping[str, str], *, others_reach: bool, local: bool) -> str:
    """Return the sinks that are allowed beyond public https: the environment's; else this machine's if only this machine can subscribe.

    With `local`, sinks on this machine are allowed in any case.
    """
    given = environ.get("HOOKTIDE_SINK_ALLOW")
    if local:
        return f"{given},{SINK_ALLOW_LOCAL}" if given else SINK_ALLOW_LOCAL
    if given is not None:
        return given
    return "" if others_reach else SINK_ALLOW_LOCAL


def reachable(address: str) -> str:
    """Return the address by which this machine connects to a service that listens on `address`."""
    host, _, port = address.rpartition(":")
    return f"{_ANY[host]}:{port}" if host in _ANY else address


def environment(service: str, *, own: Addresses, others: Mapping[str, str], base: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a service: `base`, its own addresses, and the targets of those it calls."""
    environ = {name: value for name, value in base.items() if name not in CLIENT_VARIABLES}
    environ[f"HOOKTIDE_{service.upper()}_LISTEN"] = own.listen
    environ[f"HOOKTIDE_{service.upper()}_ADMIN_LISTEN"] = own.admin
    for other in CALLS[service]:
        environ.setdefault(f"HOOKTIDE_{other.upper()}_TARGET", reachable(others[other]))
    return environ
