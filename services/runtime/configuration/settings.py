"""Settings: the `HOOKTIDE_*` variables of operators, validated and frozen.

common_settings → [settings] → settings_reader

A process reads them at the start. On SIGHUP it reads those anew that are declared `RELOADED` (`reload.py`).

This file and `common_settings.py` declare every variable of every service. So each service reports a misspelt variable instead of
ignoring it.
"""

from pathlib import Path
from typing import Any, Literal

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
from services.runtime.ids import WORKERS_MAX
from services.runtime.service_process import StartError

# The client commands read these in place of --api, --key and --secret; no service reads them.
CLIENT_VARIABLES = frozenset({"HOOKTIDE_API", "HOOKTIDE_KEY", "HOOKTIDE_KEY_FILE", "HOOKTIDE_SIGNING_SECRET"})
DELAYS_DEFAULT_S = (5, 30, 120, 600, 1800, 3600, 7200, 18000, 36000, 50400, 72000, 86400)


def _retention_hours() -> Any:  # noqa: ANN401 - as pydantic's Field
    description = (
        "How long events stay readable in the event log. The subscription service only tells it to the owners of paused subscriptions."
    )
    return Field(168.0, description=description, json_schema_extra=RELOADED)


def _expiry_hours() -> Any:  # noqa: ANN401 - as pydantic's Field
    description = (
        "How long a delivery may stay unfinished before it ends as exhausted; by default as long as the event log keeps events. The "
        "subscription service only tells it to the owners of paused subscriptions."
    )
    return Field(None, description=description, json_schema_extra=RELOADED)


class SubscriptionSettings(SinkSettings, GrpcSettings):
    """The settings of the subscription service."""

    sink_handshake: Literal["off", "required", "best_effort"] = Field(
        "off",
        description=(
            "Sink verification: with `required`, no event is sent to a sink before it has consented; with `best_effort`, a sink is "
            "asked and events do not wait; with `off`, no sink is asked."
        ),
    )

    subscription_listen: Address = Field(default_address("subscription"), description="The subscription service's gRPC address.")
    subscription_admin_listen: AdminAddress = default_admin_address("subscription")
    subscription_tls_cert_file: CertFile = None
    subscription_tls_key_file: KeyFile = None
    subscription_tls_client_ca_file: ClientCaFile = None
    subscription_database_url: str = Field(
        "", description="The registry's database; by default subscription.db in the data directory.", repr=False
    )
    subscription_database_url_file: DatabaseUrlFile = None
    subscription_changes_kept: int = Field(
        100_000,
        ge=10,
        description="How many changes the registry keeps for its watchers; a watcher that is further behind needs a new snapshot.",
    )
    secret_key: str = Field(
        "",
        description="The keys that encrypt secrets at rest, each `<key id>:<base64 of 32 bytes>`, separated by commas, the newest first.",
        repr=False,
        json_schema_extra=RELOADED,
    )
    secret_key_file: Path | None = Field(None, description="A file with the secret keys, one on each line.", json_schema_extra=RELOADED)
    ingest_retention_hours: Hours = _retention_hours()
    delivery_expiry_hours: Hours | None = _expiry_hours()

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
    ingest_database_url: str = Field("", description="The event log's database; by default ingest.db in the data directory.", repr=False)
    ingest_database_url_file: DatabaseUrlFile = None
    ingest_connection_calls_max: int = Field(
        8,
        ge=1,
        le=10_000,
        description="How many calls of one connection are under way at once; gRPC makes further calls wait at the emitter.",
    )
    ingest_event_bytes_max: int = Field(
        256 * 1024, ge=1024, le=1024 * 1024, description="The largest event, in bytes of its protobuf form.", json_schema_extra=RELOADED
    )
    ingest_log_bytes_max: int = Field(
        50 * 1024**3,
        ge=1024 * 1024,
        description="The size of the event log, in bytes, from which new events are refused.",
        json_schema_extra=RELOADED,
    )
    ingest_retention_hours: Hours = _retention_hours()
    subscription_target: SubscriptionTarget = default_address("subscription")


class DeliverySettings(SinkSettings, GrpcSettings):
    """The settings of the delivery service."""

    public_url: PublicUrl = Field(
        "",
        description=(
            "The gateway's URL as seen from outside, for example https://events.example.com. A sink can use it to consent later "
            "than in its first answer."
        ),
    )
    delivery_listen: Address = Field(default_address("delivery"), description="The delivery service's gRPC address.")
    delivery_admin_listen: AdminAddress = default_admin_address("delivery")
    delivery_tls_cert_file: CertFile = None
    delivery_tls_key_file: KeyFile = None
    delivery_tls_client_ca_file: ClientCaFile = None
    delivery_database_url: str = Field("", description="The ledger's database; by default delivery.db in the data directory.", repr=False)
    delivery_database_url_file: DatabaseUrlFile = None
    delivery_workers: int = Field(
        1,
        ge=1,
        le=WORKERS_MAX,
        description=(
            "How many processes deliver, each for its share of the subscriptions and with a ledger file of its own; `hooktide up` runs as "
            "many as the cores permit. The limits for attempts, connections, calls and sizes hold for all of them together: each gets an "
            "equal part."
        ),
    )
    delivery_retry_delays_seconds: Delays = Field(
        tuple(float(delay) for delay in DELAYS_DEFAULT_S),
        description=("The delays before the second and each later attempt, in seconds, separated by commas; each gets jitter of ±50 %."),
        json_schema_extra=RELOADED,
    )
    delivery_attempt_timeout_seconds: float = Field(
        15.0,
        gt=0,
        le=60,
        description="How long one attempt may take in total.",
        json_schema_extra=RELOADED,
    )
    delivery_connect_timeout_seconds: float = Field(
        5.0, gt=0, le=30, description="How long an attempt may take to connect.", json_schema_extra=RELOADED
    )
    delivery_first_byte_timeout_seconds: float = Field(
        15.0, gt=0, le=60, description="How long the answer to an attempt may take to begin.", json_schema_extra=RELOADED
    )
    delivery_connections_max: int = Field(
        1500, ge=1, le=20000, description="How many connections to sinks are open at once, including idle ones.", json_schema_extra=RELOADED
    )
    delivery_host_connections_max: int = Field(
        256,
        ge=1,
        le=1000,
        description="How many attempts to one host and port run at once, over all subscriptions.",
        json_schema_extra=RELOADED,
    )
    delivery_proxy: Proxy = Field(
        "",
        description=(
            "The HTTP proxy for all callback requests, `http://host:port`. Hooktide resolves and checks each sink's address and "
            "gives the proxy that address."
        ),
        repr=False,
    )
    delivery_proxy_file: Path | None = Field(
        None, description="A file with the value of HOOKTIDE_DELIVERY_PROXY, for a proxy with a password."
    )
    delivery_in_flight_max: int = Field(
        512,
        ge=1,
        le=1000,
        description="How many attempts run at once in all. One consumer gets at most half of them, each of several subscriptions a third.",
        json_schema_extra=RELOADED,
    )
    delivery_lane_in_flight_max: int = Field(
        256,
        ge=1,
        le=1000,
        description=(
            "How many attempts run at once for one subscription. It starts with 4, and gets more while its sink copes and fewer when its "
            "sink times out or answers 429, 502, 503 or 504."
        ),
        json_schema_extra=RELOADED,
    )
    delivery_lane_pending_max: int = Field(
        1000,
        ge=1,
        le=100_000,
        description="How many deliveries of one subscription wait in memory, or in the ledger before their first attempt; further ones "
        "wait in the event log.",
        json_schema_extra=RELOADED,
    )
    delivery_token_calls_max: int = Field(
        64, ge=1, le=1000, description="How many OAuth2 tokens are fetched at once.", json_schema_extra=RELOADED
    )
    delivery_test_events_max: int = Field(
        32, ge=1, le=1000, description="How many test events are under way at once.", json_schema_extra=RELOADED
    )
    delivery_handshakes_max: int = Field(
        32, ge=1, le=1000, description="How many sink verifications are under way at once.", json_schema_extra=RELOADED
    )
    delivery_tls_contexts_max: int = Field(
        128,
        ge=1,
        le=10_000,
        description=(
            "How many TLS contexts are kept for subscriptions with their own certificate authorities or client certificates; each "
            "takes about a megabyte."
        ),
        json_schema_extra=RELOADED,
    )
    delivery_disable_after_hours: float = Field(
        120.0,
        gt=0,
        le=8760,
        description="A subscription is disabled once all attempts to its sink have failed for so long.",
        json_schema_extra=RELOADED,
    )
    delivery_breaker_seconds: float = Field(
        30.0,
        gt=0,
        le=600,
        description=(
            "How long a sink's circuit breaker first stays open; this time doubles after each failed probe, up to twenty times the first."
        ),
        json_schema_extra=RELOADED,
    )
    delivery_retention_hours: Hours = Field(168.0, description="How long finished deliveries stay readable.", json_schema_extra=RELOADED)
    delivery_ledger_bytes_max: int = Field(
        20 * 1024**3,
        ge=1024 * 1024,
        description="The size of the ledger, in bytes, beyond which the oldest finished deliveries are dropped.",
        json_schema_extra=RELOADED,
    )
    delivery_expiry_hours: Hours | None = _expiry_hours()
    delivery_expiry_beyond_log: bool = Field(
        default=False,
        description=(
            "Whether the expiry may be longer than the event log keeps events. Events that only wait in the log for a slow or paused "
            "subscription still end with the log's retention."
        ),
        json_schema_extra=RELOADED,
    )
    subscription_target: SubscriptionTarget = default_address("subscription")
    ingest_target: IngestTarget = default_address("ingest")

    def expiry_s(self, log_retention_s: float) -> float:
        """Return how long a delivery may stay unfinished, in seconds from its event's acceptance."""
        return log_retention_s if self.delivery_expiry_hours is None else self.delivery_expiry_hours * 3600

    def why_expiry_is_too_long(self, log_retention_s: float) -> str | None:
        """Return in a sentence why the log cannot keep events until they expire, and what to change; None if it can, or need not."""
        if self.delivery_expiry_beyond_log or self.expiry_s(log_retention_s) <= log_retention_s:
            return None
        return (
            f"HOOKTIDE_DELIVERY_EXPIRY_HOURS={self.delivery_expiry_hours:g} is longer than the event log keeps events "
            f"({log_retention_s / 3600:g} hours); lower it, raise HOOKTIDE_INGEST_RETENTION_HOURS, or set "
            "HOOKTIDE_DELIVERY_EXPIRY_BEYOND_LOG=true"
        )


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
        description=(
            "How many connections are open at once; fewer if the limit of open files is lower. At the limit, the connection that "
            "has waited longest for its client is closed."
        ),
        json_schema_extra=RELOADED,
    )
    gateway_address_connections_max: int = Field(
        256,
        ge=1,
        le=100_000,
        description="How many connections from one address (one /64 of IPv6) are open at once.",
        json_schema_extra=RELOADED,
    )
    gateway_address_connections_per_second: float = Field(
        200.0,
        gt=0,
        le=100_000,
        description=(
            "How many new connections a second one address may use for requests; up to two seconds' worth may come at once, and "
            "further ones are closed."
        ),
        json_schema_extra=RELOADED,
    )
    gateway_headers_seconds: float = Field(
        10.0, gt=0, le=300, description="How long a client may take to send the headers of a request.", json_schema_extra=RELOADED
    )
    gateway_idle_seconds: float = Field(
        75.0, gt=0, le=3600, description="How long an idle connection stays open for its next request.", json_schema_extra=RELOADED
    )
    gateway_consumer_requests_max: int = Field(
        32,
        ge=1,
        le=10_000,
        description="How many requests of one consumer are under way at once; further ones wait.",
        json_schema_extra=RELOADED,
    )
    subscription_target: SubscriptionTarget = default_address("subscription")
    ingest_target: IngestTarget = default_address("ingest")
    delivery_target: DeliveryTarget = default_address("delivery")


ALL: tuple[type[Settings], ...] = (SubscriptionSettings, IngestSettings, DeliverySettings, GatewaySettings)
