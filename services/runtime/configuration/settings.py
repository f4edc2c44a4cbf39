"""Settings: the `HOOKTIDE_*` variables of operators, validated and frozen.

common_settings → [settings] → settings_reader

A process reads them at the start. On SIGHUP it reads those anew that are declared `RELOADED` (`reload.py`).

This file and `common_settings.py` declare every variable of every service. So each service reports a misspelt variable instead of
ignoring it.
"""

from pathlib import Path
from typing import Literal

from pydantic import Field

from services.runtime.configuration.common_settings import ClientSettings, GrpcSettings, Settings, SinkSettings
from services.runtime.configuration.default_ports import default_address, default_admin_address
from services.runtime.configuration.secret_files import SECRET_KEY_BYTES, checked_secret_key, value_or_file
from services.runtime.configuration.setting_types import (
    RELOADED,
    Address,
    AdminAddress,
    CertFile,
    ClientCaFile,
    DatabaseUrlFile,
    Delays,
    DeliveryTarget,
    Hours,
    IngestTarget,
    KeyFile,
    Proxy,
    PublicUrl,
    SubscriptionTarget,
)
from services.runtime.service_process import StartError

# The client commands read these in place of --api, --key and --secret; no service reads them.
CLIENT_VARIABLES = frozenset({"HOOKTIDE_API", "HOOKTIDE_KEY", "HOOKTIDE_KEY_FILE", "HOOKTIDE_SIGNING_SECRET"})
DELAYS_DEFAULT_S = (5, 30, 120, 600, 1800, 3600, 7200, 18000, 36000, 50400, 72000, 86400)


class SubscriptionSettings(SinkSettings, GrpcSettings):
    """The settings of the subscription service."""

    sink_handshake: Literal["off", "required", "best_effort"] = Field(
        "off",
        description="Whether sinks must consent before events are sent to them: off, required or best_effort (asked, not waited for).",
    )

    subscription_listen: Address = Field(default_address("subscription"), description="The subscription service's gRPC address.")
    subscription_admin_listen: AdminAddress = default_admin_address("subscription")
    subscription_tls_cert_file: CertFile = None
    subscription_tls_key_file: KeyFile = None
    subscription_tls_client_ca_file: ClientCaFile = None
    subscription_database_url: str = Field("", description="Its database; default: subscription.db in the data directory.", repr=False)
    subscription_database_url_file: DatabaseUrlFile = None
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

    ingest_listen: Address = Field(default_address("ingest"), description="The ingest service's gRPC address.")
    ingest_admin_listen: AdminAddress = default_admin_address("ingest")
    ingest_tls_cert_file: CertFile = None
    ingest_tls_key_file: KeyFile = None
    ingest_tls_client_ca_file: ClientCaFile = None
    ingest_database_url: str = Field("", description="The event log's database; default: ingest.db in the data directory.", repr=False)
    ingest_database_url_file: DatabaseUrlFile = None
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
    subscription_target: SubscriptionTarget = default_address("subscription")


class DeliverySettings(SinkSettings, GrpcSettings):
    """The settings of the delivery service."""

    public_url: PublicUrl = Field(
        "", description="Where the gateway is reached from outside, as https://events.example.com: by it, sinks may consent later."
    )
    delivery_listen: Address = Field(default_address("delivery"), description="The delivery service's gRPC address.")
    delivery_admin_listen: AdminAddress = default_admin_address("delivery")
    delivery_tls_cert_file: CertFile = None
    delivery_tls_key_file: KeyFile = None
    delivery_tls_client_ca_file: ClientCaFile = None
    delivery_database_url: str = Field("", description="The ledger's database; default: delivery.db in the data directory.", repr=False)
    delivery_database_url_file: DatabaseUrlFile = None
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
    subscription_target: SubscriptionTarget = default_address("subscription")
    ingest_target: IngestTarget = default_address("ingest")


class GatewaySettings(ClientSettings):
    """The settings of the gateway."""

    gateway_listen: Address = Field(default_address("gateway"), description="The REST API's address.")
    gateway_admin_listen: AdminAddress = default_admin_address("gateway")
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
    subscription_target: SubscriptionTarget = default_address("subscription")
    ingest_target: IngestTarget = default_address("ingest")
    delivery_target: DeliveryTarget = default_address("delivery")


ALL: tuple[type[Settings], ...] = (SubscriptionSettings, IngestSettings, DeliverySettings, GatewaySettings)
