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
    admin_tls_cert_file: Path | None = Field(
        None,
        description="The certificate (PEM, its chain after it) of the admin addresses, which then speak TLS only.",
        json_schema_extra=CONTENT_RELOADED,
    )
    admin_tls_key_file: Path | None = Field(
        None, description="The private key (PEM) of the admin addresses' certificate.", json_schema_extra=CONTENT_RELOADED
    )
    admin_tls_client_ca_file: Path | None = Field(
        None,
        description="The authorities (PEM) of probes and Prometheus: with it, they must show a certificate of theirs.",
        json_schema_extra=CONTENT_RELOADED,
    )

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
