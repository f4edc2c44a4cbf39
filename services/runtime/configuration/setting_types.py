"""Setting types: the forms of settings, each with an error line that says what to write instead of a wrong value.

[setting_types] → common_settings, settings

Law: pure; no message shows a password.
"""

import re
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, JsonValue
from pydantic_settings import NoDecode

from services.runtime.configuration.default_ports import default_address, default_admin_address
from services.runtime.configuration.value_redaction import quoted

PREFIX = "HOOKTIDE_"
"""The beginning of every variable's name."""
UNIX_PEERS = "unix"
_DELAY_MAX_S = 7 * 86400
_PORT_MAX = 65535
_NAME_CHARS_MAX = 253
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*", re.ASCII)
_PUBLIC_URL = re.compile(r"https?://[A-Za-z0-9.:\[\]-]+(?:/[A-Za-z0-9._~/-]*)?", re.ASCII)
_HOURS_MAX = 87_600  # ten years
# Declares that a setting takes effect on SIGHUP; give it to `Field` as `json_schema_extra`.
RELOADED: dict[str, JsonValue] = {"reloaded": True}
# Declares that SIGHUP reads the content of the named file anew, while the setting itself keeps its value.
CONTENT_RELOADED: dict[str, JsonValue] = {"reloaded": "content"}


def _address(text: str) -> str:
    if text.startswith("unix:"):
        return text
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or int(port) > _PORT_MAX:
        message = f"{quoted(text)} is not a valid address; write host:port, for example {default_address('subscription')}"
        raise ValueError(message)
    return text


def _tcp_address(text: str) -> str:
    if text.startswith("unix:"):
        message = (
            f"{quoted(text)} is a Unix socket, and this address must be a TCP address; write host:port, for example "
            f"{default_admin_address('subscription')}"
        )
        raise ValueError(message)
    return _address(text)


def checked_target(text: str) -> str:
    """Return the text if it is a target of gRPC calls; else raise ValueError, which says what to write."""
    return text if text.startswith(("dns:", "unix:", "ipv4:", "ipv6:")) else _address(text)


def _delays(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return tuple(float(part) for part in value.split(","))
    except ValueError:
        message = f"{quoted(value)} is not a list of seconds; write for example 5,30,120"
        raise ValueError(message) from None


def _checked_delays(delays: tuple[float, ...]) -> tuple[float, ...]:
    if not all(0 < delay <= _DELAY_MAX_S for delay in delays):
        message = f"each delay must be above 0 and at most {_DELAY_MAX_S} seconds"
        raise ValueError(message)
    return delays


def _words(value: object) -> object:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _ports(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return tuple(int(part) for part in value.split(",") if part.strip())
    except ValueError:
        message = f"{quoted(value)} is not a list of ports; write for example 443,8443"
        raise ValueError(message) from None


def _checked_ports(ports: tuple[int, ...]) -> tuple[int, ...]:
    if not all(1 <= port <= _PORT_MAX for port in ports):
        message = f"each port must be from 1 to {_PORT_MAX}"
        raise ValueError(message)
    return ports


def _checked_proxies(words: tuple[str, ...]) -> tuple[str, ...]:
    for word in words:
        if word != UNIX_PEERS:
            try:
                ip_network(word)
            except ValueError:
                message = f"{quoted(word)} is neither an address range nor the word {UNIX_PEERS}; write for example 10.0.0.0/8"
                raise ValueError(message) from None
    return words


def _origin(text: str) -> str:
    if text and (len(text) > _NAME_CHARS_MAX or _NAME.fullmatch(text) is None):
        message = f"{quoted(text)} is not a valid DNS name; write for example hooks.example.com"
        raise ValueError(message)
    return text.lower()


def _public_url(text: str) -> str:
    if text and _PUBLIC_URL.fullmatch(text) is None:
        message = f"{quoted(text)} is not a valid base URL; write for example https://events.example.com"
        raise ValueError(message)
    return text.rstrip("/")


def _proxy(text: str) -> str:
    if text and re.fullmatch(r"http://(?:[^\s/@]+@)?(?:[\w.-]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}/?", text) is None:
        message = "is not a valid proxy URL; write http://host:port"
        raise ValueError(message)
    return text


Address = Annotated[str, AfterValidator(_address)]
AdminAddress = Annotated[
    str, AfterValidator(_tcp_address), Field(description="The admin address, which serves /healthz, /readyz and /metrics.")
]
SubscriptionTarget = Annotated[
    str, AfterValidator(checked_target), Field(description="The subscription service's address, for the services that call it.")
]
IngestTarget = Annotated[
    str, AfterValidator(checked_target), Field(description="The ingest service's address, for the services that call it.")
]
DeliveryTarget = Annotated[
    str, AfterValidator(checked_target), Field(description="The delivery service's address, for the services that call it.")
]
DatabaseUrlFile = Annotated[Path | None, Field(description="A file with the database's URL, for a URL with a password.")]
Hours = Annotated[float, Field(gt=0, le=_HOURS_MAX)]
Delays = Annotated[tuple[float, ...], NoDecode, BeforeValidator(_delays), AfterValidator(_checked_delays)]
Proxy = Annotated[str, AfterValidator(_proxy)]
Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_words)]
Ports = Annotated[tuple[int, ...], NoDecode, BeforeValidator(_ports), AfterValidator(_checked_ports)]
Proxies = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_words), AfterValidator(_checked_proxies)]
Origin = Annotated[str, AfterValidator(_origin)]
PublicUrl = Annotated[str, AfterValidator(_public_url)]
CertFile = Annotated[
    Path | None,
    Field(
        description=(
            "A PEM file of the certificate for the service's own address, followed by its chain. If it is set, the address accepts "
            "TLS only."
        ),
        json_schema_extra=CONTENT_RELOADED,
    ),
]
KeyFile = Annotated[
    Path | None, Field(description="A PEM file of the private key of that certificate.", json_schema_extra=CONTENT_RELOADED)
]
ClientCaFile = Annotated[
    Path | None,
    Field(
        description="A PEM file of the certificate authorities of clients. If it is set, each client must present a client certificate.",
        json_schema_extra=CONTENT_RELOADED,
    ),
]
