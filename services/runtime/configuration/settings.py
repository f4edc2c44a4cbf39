"""Settings: the `HOOKTIDE_*` variables of operators, validated and frozen.

A process reads them at the start. On SIGHUP it reads those anew that are declared `RELOADED` (`reload.py`).

This file declares every variable of every service. So each service reports a misspelt variable instead of ignoring it. Each mistake is
one line that says what to change.
"""

import difflib
import math
import os
from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from services.runtime.configuration.secret_files import SECRET_KEY_BYTES, checked_secret_key, value_or_file, with_secret_files
from services.runtime.configuration.service_links import without_service_links
from services.runtime.configuration.setting_types import (
    CONTENT_RELOADED,
    RELOADED,
    UNIX_PEERS,
    Address,
    CertFile,
    ClientCaFile,
    Delays,
    Hours,
    KeyFile,
    Origin,
    Ports,
    Proxies,
    Proxy,
    PublicUrl,
    Target,
    TcpAddress,
    Words,
)
from services.runtime.configuration.settings_file import with_settings_file
from services.runtime.configuration.shown import plainly_shown
from services.runtime.fair_semaphore import Share
from services.runtime.http.client_address import TrustedProxies
from services.runtime.logs import LogLevel
from services.runtime.service_process import StartError

PREFIX = "HOOKTIDE_"
# The client commands read these in place of --api, --key and --secret; no service reads them.
CLIENT_VARIABLES = frozenset({"HOOKTIDE_API", "HOOKTIDE_KEY", "HOOKTIDE_KEY_FILE", "HOOKTIDE_SIGNING_SECRET"})
DELAYS_DEFAULT_S = (5, 30, 120, 600, 1800, 3600, 7200, 18000, 36000, 50400, 72000, 86400)
_TOKEN_CHARS_MIN = 24


class Settings(BaseSettings):
    """The settings of every service."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore", env_ignore_empty=True)

    data_dir: Path = Field(Path("hooktide-data"), description="Where SQLite files are kept.")
    settings_file: Path | None = Field(
        None, description="A file of further settings, a HOOKTIDE_NAME=value a line; the environment goes first."
    )
    log_level: LogLevel = Field("info", description="debug, info, warning or error.", json_schema_extra=RELOADED)
    housekeeping_seconds: float = Field(
        30.0, gt=0, le=3600, description="How often what is past its retention is looked for.", json_schema_extra=RELOADED
    )
    service_token: str = Field(
        "",
        description="The token by which the services know each other, at least 24 characters; of several, by commas, all are accepted "
        "and the first is sent.",
        json_schema_extra=RELOADED,
        repr=False,
    )
    service_token_file: Path | None = Field(
        None, description="A file that holds the service token, or several, one a line.", json_schema_extra=RELOADED
    )
    tls_ca_file: Path | None = Field(
        None,
        description="The authorities (PEM) that vouch for the other services; with it, calls between services use TLS.",
        json_schema_extra=CONTENT_RELOADED,
    )
    tls_cert_file: Path | None = Field(
        None, description="The certificate (PEM, its chain after it) that calls to other services show.", json_schema_extra=CONTENT_RELOADED
    )
    tls_key_file: Path | None = Field(None, description="Its private key (PEM).", json_schema_extra=CONTENT_RELOADED)

    def tokens(self) -> tuple[str, ...]:
        """Return the service tokens, from the variable or its file: the first is sent, all are accepted."""
        text, where = value_or_file("SERVICE_TOKEN", self.service_token, self.service_token_file)
        tokens = tuple(part.strip() for part in text.replace("\n", ",").split(",") if part.strip())
        if not tokens or min(len(token) for token in tokens) < _TOKEN_CHARS_MIN:
            message = f"{where} is too short: at least {_TOKEN_CHARS_MIN} characters, the same for all services"
            raise StartError(message)
        return tokens

    def token(self) -> str:
        """Return the service token that is sent; see `tokens`."""
        return self.tokens()[0]


class ClientSettings(Settings):
    """The settings of the services that have clients, about those clients."""

    trusted_proxies: Proxies = Field(
        (),
        description="The proxies in front, by commas: address ranges, or `unix` for peers of a Unix socket. "
        "Their `Forwarded` and `X-Forwarded-For` headers name the client, and no limit for one address applies to them.",
    )
    authentication_failures_burst: int = Field(
        20,
        ge=1,
        le=10_000,
        description="How many failed authentications one address may make before their refusals are slowed.",
        json_schema_extra=RELOADED,
    )
    authentication_failures_per_second: float = Field(
        5.0,
        gt=0,
        le=10_000,
        description="How many refusals a second one address gets from then on. Correct keys are not slowed.",
        json_schema_extra=RELOADED,
    )

    def proxies(self) -> TrustedProxies:
        """Return the trusted proxies."""
        networks = [ip_network(word) for word in self.trusted_proxies if word != UNIX_PEERS]
        return TrustedProxies(networks, unix=UNIX_PEERS in self.trusted_proxies)


class GrpcSettings(ClientSettings):
    """The settings of services that listen for gRPC: limits for clients. Calls with the service token have no limit per address."""

    grpc_connections_max: int = Field(
        1024,
        ge=16,
        le=100_000,
        description="How many connections a gRPC listener keeps at once, less if the limit of open files is lower.",
    )
    grpc_address_connections_max: int = Field(
        256,
        ge=1,
        le=100_000,
        description="How many connections one address (of IPv6, one /64) keeps at once to a gRPC listener.",
        json_schema_extra=RELOADED,
    )
    grpc_address_calls_max: int = Field(
        1000,
        ge=1,
        le=100_000,
        description="How many gRPC calls of one address are under way at once; more are refused.",
        json_schema_extra=RELOADED,
    )
    grpc_reflection: bool = Field(
        default=False, description="Whether gRPC listeners describe their methods to anyone (server reflection); `hooktide up` turns it on."
    )


class SinkSettings(Settings):
    """The settings of services that check or call sinks."""

    sink_allow: Words = Field(
        (),
        description="What sinks may use beyond https to public addresses, by commas: `http`, or address ranges such as 127.0.0.0/8.",
        json_schema_extra=RELOADED,
    )
    sink_deny: Words = Field(
        (), description="Address ranges that no sink may have, by commas, whatever else is allowed.", json_schema_extra=RELOADED
    )
    sink_ports: Ports = Field(
        (),
        description="The only ports that sinks may have, by commas; default: all but those of other protocols, such as mail.",
        json_schema_extra=RELOADED,
    )
    origin: Origin = Field("", description="The name, as in DNS, by which sinks know this system in ownership handshakes.")
    sink_lookups_max: int = Field(
        32, ge=1, le=1024, description="How many names of sinks a service looks up at once.", json_schema_extra=RELOADED
    )
    consumer_share_percent: float = Field(
        12.5,
        gt=0,
        le=100,
        description="How much one consumer may use at once of what all share: name lookups, token calls, test events and handshakes.",
        json_schema_extra=RELOADED,
    )

    def share_of(self, permits: int) -> Share:
        """Return `permits` and one consumer's share of them, rounded up and at least one."""
        return Share(permits, max(1, math.ceil(permits * self.consumer_share_percent / 100)))


class SubscriptionSettings(SinkSettings, GrpcSettings):
    """The settings of the subscription service."""

    sink_handshake: Literal["off", "required", "best_effort"] = Field(
        "off",
        description="Whether sinks must consent before events are sent to them: off, required or best_effort (asked, not waited for).",
    )

    subscription_listen: Address = Field("127.0.0.1:50051", description="The subscription service's gRPC address.")
    subscription_admin_listen: TcpAddress = Field("127.0.0.1:9051", description="Its /healthz, /readyz and /metrics.")
    subscription_tls_cert_file: CertFile = None
    subscription_tls_key_file: KeyFile = None
    subscription_tls_client_ca_file: ClientCaFile = None
    subscription_database_url: str = Field("", description="Its database; default: subscription.db in the data directory.", repr=False)
    subscription_database_url_file: Path | None = Field(None, description="A file that holds it, for a URL with a password.")
    subscription_changes_kept: int = Field(
        100_000, ge=10, description="How many changes a watcher may be behind before it needs a snapshot."
    )
    secret_key: str = Field(
        "",
        description="`<key id>:<base64 of 32 bytes>`, the newest first, by commas: encrypts secrets at rest.",
        repr=False,
        json_schema_extra=RELOADED,
    )
    secret_key_file: Path | None = Field(None, description="A file that holds the secret keys, one a line.", json_schema_extra=RELOADED)

    def secret_keys(self) -> dict[str, bytes]:
        """Return the keys by their ids; the first key encrypts, all keys decrypt."""
        text, where = value_or_file("SECRET_KEY", self.secret_key, self.secret_key_file)
        keys: dict[str, bytes] = {}
        for part in text.replace("\n", ",").split(","):
            if part.strip():
                key_id, _, encoded = part.strip().partition(":")
                keys[key_id] = checked_secret_key(where, key_id, encoded)
        if not keys:
            message = f"{where} is empty; write <key id>:<base64 of {SECRET_KEY_BYTES} bytes>"
            raise StartError(message)
        return keys


class IngestSettings(GrpcSettings):
    """The settings of the ingest service."""

    ingest_listen: Address = Field("127.0.0.1:50052", description="The ingest service's gRPC address.")
    ingest_admin_listen: TcpAddress = Field("127.0.0.1:9052", description="Its /healthz, /readyz and /metrics.")
    ingest_tls_cert_file: CertFile = None
    ingest_tls_key_file: KeyFile = None
    ingest_tls_client_ca_file: ClientCaFile = None
    ingest_database_url: str = Field("", description="The event log's database; default: ingest.db in the data directory.", repr=False)
    ingest_database_url_file: Path | None = Field(None, description="A file that holds it, for a URL with a password.")
    ingest_connection_calls_max: int = Field(
        16, ge=1, le=10_000, description="How many calls of one connection are under way at once; gRPC holds more back at the emitter."
    )
    ingest_event_bytes_max: int = Field(
        256 * 1024, ge=1024, le=1024 * 1024, description="The largest event, in bytes of its protobuf form.", json_schema_extra=RELOADED
    )
    ingest_log_bytes_max: int = Field(
        50 * 1024**3, ge=1024 * 1024, description="The log's size at which new events are refused, in bytes.", json_schema_extra=RELOADED
    )
    ingest_retention_hours: Hours = Field(168.0, description="How long events stay readable in the log.", json_schema_extra=RELOADED)
    subscription_target: Target = Field("127.0.0.1:50051", description="Where the subscription service is reached.")


class DeliverySettings(SinkSettings, GrpcSettings):
    """The settings of the delivery service."""

    public_url: PublicUrl = Field(
        "", description="Where the gateway is reached from outside, as https://events.example.com: by it, sinks may consent later."
    )
    delivery_listen: Address = Field("127.0.0.1:50053", description="The delivery service's gRPC address.")
    delivery_admin_listen: TcpAddress = Field("127.0.0.1:9053", description="Its /healthz, /readyz and /metrics.")
    delivery_tls_cert_file: CertFile = None
    delivery_tls_key_file: KeyFile = None
    delivery_tls_client_ca_file: ClientCaFile = None
    delivery_database_url: str = Field("", description="The ledger's database; default: delivery.db in the data directory.", repr=False)
    delivery_database_url_file: Path | None = Field(None, description="A file that holds it, for a URL with a password.")
    delivery_retry_delays_seconds: Delays = Field(
        tuple(float(delay) for delay in DELAYS_DEFAULT_S),
        description="The waits before each further attempt, by commas, before jitter of ±50 %.",
        json_schema_extra=RELOADED,
    )
    delivery_attempt_timeout_seconds: float = Field(
        15.0, gt=0, le=60, description="How long one attempt may take in all.", json_schema_extra=RELOADED
    )
    delivery_connect_timeout_seconds: float = Field(
        5.0, gt=0, le=30, description="How long connecting may take.", json_schema_extra=RELOADED
    )
    delivery_first_byte_timeout_seconds: float = Field(
        15.0, gt=0, le=60, description="How long an answer may take to begin.", json_schema_extra=RELOADED
    )
    delivery_connections_max: int = Field(
        1500, ge=1, le=20000, description="How many connections are open at once, idle ones included.", json_schema_extra=RELOADED
    )
    delivery_host_connections_max: int = Field(
        128,
        ge=1,
        le=1000,
        description="How many attempts run at once to one host and port, whatever their subscriptions.",
        json_schema_extra=RELOADED,
    )
    delivery_proxy: Proxy = Field(
        "",
        description="The HTTP proxy that all webhooks go through, `http://host:port`; it is told the address, already judged.",
        repr=False,
    )
    delivery_proxy_file: Path | None = Field(None, description="A file that holds it, for a proxy with a password.")
    delivery_in_flight_max: int = Field(256, ge=1, le=1000, description="How many attempts run at once.", json_schema_extra=RELOADED)
    delivery_lane_in_flight_max: int = Field(
        64, ge=1, le=1000, description="How many attempts run at once for one subscription.", json_schema_extra=RELOADED
    )
    delivery_lane_pending_max: int = Field(
        4000,
        ge=1,
        le=100_000,
        description="How many deliveries of one subscription wait in memory; more wait in the ledger.",
        json_schema_extra=RELOADED,
    )
    delivery_token_calls_max: int = Field(
        64, ge=1, le=1000, description="How many OAuth2 tokens are fetched at once.", json_schema_extra=RELOADED
    )
    delivery_test_events_max: int = Field(
        32, ge=1, le=1000, description="How many test events are under way at once.", json_schema_extra=RELOADED
    )
    delivery_handshakes_max: int = Field(
        32, ge=1, le=1000, description="How many sinks are asked for their consent at once.", json_schema_extra=RELOADED
    )
    delivery_tls_contexts_max: int = Field(
        128,
        ge=1,
        le=10_000,
        description="How many TLS contexts of own authorities and client certificates are kept, each about a megabyte.",
        json_schema_extra=RELOADED,
    )
    delivery_breaker_seconds: float = Field(
        30.0,
        gt=0,
        le=600,
        description="How long an endpoint that keeps failing is spared at first; then twice as long each time, up to twenty times.",
        json_schema_extra=RELOADED,
    )
    delivery_retention_hours: Hours = Field(168.0, description="How long finished deliveries stay readable.", json_schema_extra=RELOADED)
    delivery_ledger_bytes_max: int = Field(
        20 * 1024**3,
        ge=1024 * 1024,
        description="The ledger's size beyond which the oldest finished deliveries go, in bytes.",
        json_schema_extra=RELOADED,
    )
    delivery_expiry_hours: Hours = Field(
        336.0, description="How long a delivery may stay unfinished before it is exhausted.", json_schema_extra=RELOADED
    )
    subscription_target: Target = Field("127.0.0.1:50051", description="Where the subscription service is reached.")
    ingest_target: Target = Field("127.0.0.1:50052", description="Where the ingest service is reached.")


class GatewaySettings(ClientSettings):
    """The settings of the gateway."""

    gateway_listen: Address = Field("127.0.0.1:8080", description="The REST API's address.")
    gateway_admin_listen: TcpAddress = Field("127.0.0.1:8081", description="Its /healthz, /readyz and /metrics.")
    gateway_tls_cert_file: CertFile = None
    gateway_tls_key_file: KeyFile = None
    gateway_tls_client_ca_file: ClientCaFile = None
    gateway_body_bytes_max: int = Field(1024 * 1024, ge=1024, description="The largest request body, in bytes.", json_schema_extra=RELOADED)
    gateway_connections_max: int = Field(
        4096,
        ge=16,
        le=100_000,
        description="How many connections are open at once, less if the limit of open files is lower; "
        "beyond that the one that has waited for its client for longest is closed.",
        json_schema_extra=RELOADED,
    )
    gateway_address_connections_max: int = Field(
        256,
        ge=1,
        le=100_000,
        description="How many connections are open at once from one address (of IPv6, one /64).",
        json_schema_extra=RELOADED,
    )
    gateway_address_connections_per_second: float = Field(
        200.0,
        gt=0,
        le=100_000,
        description="On how many new connections one address may send requests a second, two seconds' worth at once; more are closed.",
        json_schema_extra=RELOADED,
    )
    gateway_headers_seconds: float = Field(
        10.0, gt=0, le=300, description="How long a client may take to send the headers of a request.", json_schema_extra=RELOADED
    )
    gateway_idle_seconds: float = Field(
        75.0, gt=0, le=3600, description="How long a connection is kept for a next request.", json_schema_extra=RELOADED
    )
    gateway_consumer_requests_max: int = Field(
        32,
        ge=1,
        le=10_000,
        description="How many requests of one consumer are worked on at once; more wait for their turn.",
        json_schema_extra=RELOADED,
    )
    subscription_target: Target = Field("127.0.0.1:50051", description="Where the subscription service is reached.")
    ingest_target: Target = Field("127.0.0.1:50052", description="Where the ingest service is reached.")
    delivery_target: Target = Field("127.0.0.1:50053", description="Where the delivery service is reached.")


ALL: tuple[type[Settings], ...] = (SubscriptionSettings, IngestSettings, DeliverySettings, GatewaySettings)
_Read = TypeVar("_Read", bound=Settings)


def read_settings(kind: type[_Read], environ: Mapping[str, str] | None = None) -> _Read:
    """Read the settings of one service from the environment.

    The file that `HOOKTIDE_SETTINGS_FILE` names completes the environment. Raises `StartError` with one line for each mistake: a value out
    of its limits, or a name that begins with HOOKTIDE_ and is neither a setting nor set by Kubernetes.
    """
    environ = without_service_links(with_settings_file(os.environ if environ is None else environ))
    own = [name.removesuffix("_file").upper() for name in kind.model_fields if name.endswith(("_url_file", "_proxy_file"))]
    environ, from_files, mistakes = with_secret_files(environ, own)
    mistakes += misspelt(environ)
    values = {name: environ[variable(name)] for name in kind.model_fields if environ.get(variable(name), "") != ""}
    try:
        settings = kind.model_validate(values)
    except ValidationError as error:
        mistakes += [_mistake(detail, from_files) for detail in error.errors(include_url=False)]
    if mistakes:
        raise StartError("\n  ".join(mistakes))
    return settings


def reloaded_fields(kind: type[Settings]) -> frozenset[str]:
    """Return the fields that SIGHUP reads anew."""
    return frozenset(name for name, field in kind.model_fields.items() if field.json_schema_extra == RELOADED)


def variable(field: str) -> str:
    """Return the environment variable of a field."""
    return PREFIX + field.upper()


def misspelt(environ: Mapping[str, str]) -> list[str]:
    """Return a line for each HOOKTIDE_ variable that no service knows, with the nearest known name."""
    known = {variable(name) for kind in ALL for name in kind.model_fields} | CLIENT_VARIABLES
    lines = []
    for name in sorted(environ):
        if name.startswith(PREFIX) and name not in known:
            # The common prefix is left out, since it would make any two names similar.
            near = difflib.get_close_matches(name.removeprefix(PREFIX), [each.removeprefix(PREFIX) for each in known], n=1)
            lines.append(f"{name} is not a setting" + (f"; did you mean {PREFIX}{near[0]}?" if near else "; see the table in README.md"))
    return lines


def _mistake(detail: Any, from_files: Mapping[str, str]) -> str:  # noqa: ANN401 - pydantic's own dictionary
    field = str(detail["loc"][0]) if detail["loc"] else ""
    text = str(detail["msg"]).removeprefix("Value error, ")
    if variable(field) in from_files:
        return f"{variable(field)}_FILE={plainly_shown(from_files[variable(field)])}: what stands there {text}"
    return f"{variable(field)}={plainly_shown(str(detail['input']))}: {text}"
