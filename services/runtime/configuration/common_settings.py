"""Common settings: the `HOOKTIDE_*` variables that several services read.

[common_settings] → settings → settings_reader
"""

import math
from ipaddress import ip_network
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from services.runtime.configuration.secret_files import value_or_file
from services.runtime.configuration.setting_types import CONTENT_RELOADED, PREFIX, RELOADED, UNIX_PEERS, Origin, Ports, Proxies, Words
from services.runtime.fair_semaphore import Share
from services.runtime.http.client_address import TrustedProxies
from services.runtime.logs import LogLevel
from services.runtime.service_process import StartError

_TOKEN_CHARS_MIN = 24


class Settings(BaseSettings):
    """The settings of every service."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore", env_ignore_empty=True)

    data_dir: Path = Field(Path("hooktide-data"), description="The directory of the SQLite files.")
    settings_file: Path | None = Field(
        None, description="A file with more settings, one `HOOKTIDE_NAME=value` on each line. A variable of the environment has precedence."
    )
    log_level: LogLevel = Field(
        "info", description="The lowest level that is logged: debug, info, warning or error.", json_schema_extra=RELOADED
    )
    housekeeping_seconds: float = Field(
        30.0, gt=0, le=3600, description="How often a service looks for data past its retention.", json_schema_extra=RELOADED
    )
    service_token: str = Field(
        "",
        description=(
            "The token with which the services authenticate to each other, at least 24 characters. Several tokens are separated by "
            "commas: a service sends the first and accepts all."
        ),
        json_schema_extra=RELOADED,
        repr=False,
    )
    service_token_file: Path | None = Field(
        None, description="A file with the service token, or with several tokens, one on each line.", json_schema_extra=RELOADED
    )
    tls_ca_file: Path | None = Field(
        None,
        description=(
            "A PEM file of the certificate authorities that the services trust for each other. If it is set, calls between services "
            "use TLS."
        ),
        json_schema_extra=CONTENT_RELOADED,
    )
    tls_cert_file: Path | None = Field(
        None,
        description="A PEM file of the client certificate for calls to other services, followed by its chain.",
        json_schema_extra=CONTENT_RELOADED,
    )
    tls_key_file: Path | None = Field(
        None, description="A PEM file of the private key of that client certificate.", json_schema_extra=CONTENT_RELOADED
    )
    admin_tls_cert_file: Path | None = Field(
        None,
        description="A PEM file of the admin address's certificate, followed by its chain. If it is set, the address accepts TLS only.",
        json_schema_extra=CONTENT_RELOADED,
    )
    admin_tls_key_file: Path | None = Field(
        None, description="A PEM file of the private key of that certificate.", json_schema_extra=CONTENT_RELOADED
    )
    admin_tls_client_ca_file: Path | None = Field(
        None,
        description=(
            "A PEM file of the certificate authorities of probes and Prometheus. If it is set, they must present a client certificate."
        ),
        json_schema_extra=CONTENT_RELOADED,
    )

    def tokens(self) -> tuple[str, ...]:
        """Return the service tokens, from the variable or its file: the first is sent, all are accepted."""
        text, where = value_or_file("SERVICE_TOKEN", self.service_token, self.service_token_file)
        tokens = tuple(part.strip() for part in text.replace("\n", ",").split(",") if part.strip())
        if not tokens or min(len(token) for token in tokens) < _TOKEN_CHARS_MIN:
            message = f"{where} is too short; write at least {_TOKEN_CHARS_MIN} characters, the same for all services"
            raise StartError(message)
        return tokens

    def token(self) -> str:
        """Return the service token that is sent; see `tokens`."""
        return self.tokens()[0]


class ClientSettings(Settings):
    """The settings of the services that have clients, about those clients."""

    trusted_proxies: Proxies = Field(
        (),
        description=(
            "The trusted reverse proxies, separated by commas: address ranges, or `unix` for clients of a Unix socket. Their "
            "`Forwarded` and `X-Forwarded-For` headers name the client, and no limit per address applies to them."
        ),
    )
    authentication_failures_burst: int = Field(
        20,
        ge=1,
        le=10_000,
        description="How many authentications of one address may fail before further refusals are delayed.",
        json_schema_extra=RELOADED,
    )
    authentication_failures_per_second: float = Field(
        5.0,
        gt=0,
        le=10_000,
        description="How many refusals a second one address gets after that. Requests with a correct key are not delayed.",
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
        description="How many connections a gRPC listener has open at once; fewer if the limit of open files is lower.",
    )
    grpc_address_connections_max: int = Field(
        256,
        ge=1,
        le=100_000,
        description="How many connections one address (one /64 of IPv6) may have open to a gRPC listener.",
        json_schema_extra=RELOADED,
    )
    grpc_address_calls_max: int = Field(
        1000,
        ge=1,
        le=100_000,
        description="How many gRPC calls of one address are under way at once; further calls are refused.",
        json_schema_extra=RELOADED,
    )
    grpc_reflection: bool = Field(
        default=False, description="Whether gRPC listeners offer server reflection to everybody; `hooktide up` turns it on."
    )


class SinkSettings(Settings):
    """The settings of services that check or call sinks."""

    sink_allow: Words = Field(
        (),
        description=(
            "What sinks may use besides https to public addresses, separated by commas: `http`, or address ranges such as 127.0.0.0/8."
        ),
        json_schema_extra=RELOADED,
    )
    sink_deny: Words = Field(
        (),
        description="The address ranges that no sink may have, separated by commas, even if another setting allows them.",
        json_schema_extra=RELOADED,
    )
    sink_ports: Ports = Field(
        (),
        description=(
            "The only ports that sinks may have, separated by commas; by default all ports except those of other protocols, such as mail."
        ),
        json_schema_extra=RELOADED,
    )
    origin: Origin = Field(
        "", description="The DNS name that this system gives to sinks in sink verification, for example hooks.example.com."
    )
    sink_lookups_max: int = Field(
        32, ge=1, le=1024, description="How many sinks' names a service looks up in DNS at once.", json_schema_extra=RELOADED
    )
    consumer_share_percent: float = Field(
        12.5,
        gt=0,
        le=100,
        description=(
            "The percentage that one consumer may use of the limits for name lookups, token calls, test events and sink verifications."
        ),
        json_schema_extra=RELOADED,
    )

    def share_of(self, permits: int) -> Share:
        """Return `permits` and one consumer's share of them, rounded up and at least one."""
        return Share(permits, max(1, math.ceil(permits * self.consumer_share_percent / 100)))
