"""Service links: recognises the variables that Kubernetes sets in every container for each Service of its namespace.

A Service named ``hooktide-gateway`` gives each container ``HOOKTIDE_GATEWAY_SERVICE_HOST=10.0.0.7``,
``HOOKTIDE_GATEWAY_PORT=tcp://10.0.0.7:8080`` and more, in the form of Docker's container links. They are not settings.

Source: Kubernetes, "Discovering services", environment variables.
"""

import re
from collections.abc import Callable, Mapping
from ipaddress import ip_address

_PROTOCOLS = ("tcp", "udp", "sctp")
_URL = re.compile(r"(?:tcp|udp|sctp)://(?P<host>\[[0-9A-Fa-f:.]+\]|[^:/]+):(?P<port>[0-9]{1,5})", re.ASCII)
_PORT_MAX = 65535
_PORT_DIGITS_MAX = 5


def without_service_links(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without the variables of Kubernetes Services, recognised by both name and value."""
    return {name: value for name, value in environ.items() if not is_service_link(name, value)}


def is_service_link(name: str, value: str) -> bool:
    """Return whether Kubernetes sets such a variable for a Service; a setting never has both such a name and such a value."""
    return any(ending.fullmatch(name) is not None and fits(value) for ending, fits in _LINKS)


def _is_address(value: str) -> bool:
    try:
        ip_address(value)
    except ValueError:
        return False
    return True


def _is_port(value: str) -> bool:
    return value.isascii() and value.isdigit() and len(value) <= _PORT_DIGITS_MAX and 0 < int(value) <= _PORT_MAX


def _is_url(value: str) -> bool:
    url = _URL.fullmatch(value)
    return url is not None and _is_address(url["host"].strip("[]")) and _is_port(url["port"])


def _named(ending: str) -> re.Pattern[str]:
    return re.compile(f"HOOKTIDE(?:_[A-Z0-9_]+)?_{ending}", re.ASCII)


_PORT = f"PORT_[0-9]+_(?:{'|'.join(_PROTOCOLS).upper()})"
# A Service may itself be named after one of these endings, so several patterns can match one name.
_LINKS: tuple[tuple[re.Pattern[str], Callable[[str], bool]], ...] = (
    (_named("SERVICE_HOST"), _is_address),
    (_named("SERVICE_PORT(?:_[A-Z0-9_]+)?"), _is_port),
    (_named("PORT"), _is_url),
    (_named(_PORT), _is_url),
    (_named(f"{_PORT}_PROTO"), _PROTOCOLS.__contains__),
    (_named(f"{_PORT}_PORT"), _is_port),
    (_named(f"{_PORT}_ADDR"), _is_address),
)
