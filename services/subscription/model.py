"""Model: what the registry keeps, as values.

server → [model] → store

Times are whole milliseconds since 1970-01-01T00:00:00Z.
"""

import hashlib
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple, NewType

from services.subscription.credential import Credential

SubscriptionId = NewType("SubscriptionId", str)
ConsumerId = NewType("ConsumerId", str)
KeyId = NewType("KeyId", str)

EVERY_CONSUMER = "*"


class Protocol(Enum):
    """How events reach the consumer."""

    HTTP = "HTTP"


class ContentMode(Enum):
    """How an event is put into an HTTP request."""

    STRUCTURED = "structured"
    BINARY = "binary"
    DATA_ONLY = "data_only"


class Scheme(Enum):
    """A way to sign a webhook."""

    V1 = "v1"
    V1A = "v1a"


class State(Enum):
    """Whether a subscription receives events."""

    ACTIVE = "active"
    PAUSED = "paused"
    DISABLED = "disabled"
    UNVERIFIED = "unverified"


class Role(Enum):
    """What an API key may do."""

    ADMIN = "admin"
    EMITTER = "emitter"
    CONSUMER = "consumer"


class Handshake(Enum):
    """What the operator wants of sinks: never asked for consent, sent to only with it, or sent to and asked."""

    OFF = "off"
    REQUIRED = "required"
    BEST_EFFORT = "best_effort"


class Consent(Enum):
    """What is known of a sink's consent; see the contract's `VerificationState`."""

    PENDING = "pending"
    GRANTED = "granted"
    REFUSED = "refused"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Config:
    """Limits and notes; None: as the operator has set. No delays: a failed delivery is not tried again."""

    description: str = ""
    rate_per_second: float | None = None
    in_flight_max: int | None = None
    retry_delays_ms: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class ProtocolSettings:
    """How requests are made. `headers` are sorted, with names in lower case; `signatures` is never empty."""

    headers: tuple[tuple[str, str], ...] = ()
    timeout_ms: int | None = None
    content_mode: ContentMode = ContentMode.STRUCTURED
    signatures: tuple[Scheme, ...] = (Scheme.V1,)
    http_message_signature: bool = False
    ca_certificates: str = ""


@dataclass(frozen=True, slots=True)
class Verification:
    """What the sink of a subscription has said to the ownership handshake; no rate: without a limit."""

    consent: Consent
    rate_per_minute: int | None
    detail: str
    time_ms: int


@dataclass(frozen=True, slots=True)
class Subscription:
    """A consumer's wish to be told, as it stood after the change numbered `revision`. The credential is without its secret."""

    id: SubscriptionId
    consumer_id: ConsumerId
    sink: str
    protocol: Protocol
    types: tuple[str, ...]
    source: str
    config: Config
    settings: ProtocolSettings
    credential: Credential | None
    state: State
    state_reason: str
    verification: Verification | None
    create_ms: int
    update_ms: int
    revision: int
    sink_revision: int

    @property
    def etag(self) -> str:
        """Changes with every change; says nothing else."""
        return _etag(self.id, self.revision, self.update_ms)


@dataclass(frozen=True, slots=True)
class SigningSecret:
    """A secret ("whsec_…") or private key ("whsk_…") that webhooks are signed with; it is used until `expire_ms`."""

    scheme: Scheme
    secret: str = field(repr=False)
    create_ms: int
    expire_ms: int | None


@dataclass(frozen=True, slots=True)
class Consumer:
    """An external party that owns subscriptions."""

    id: ConsumerId
    name: str
    create_ms: int


@dataclass(frozen=True, slots=True)
class Key:
    """An API key, without its clear text. `consumer_id` is set for the role consumer and only there."""

    id: KeyId
    role: Role
    consumer_id: ConsumerId | None
    name: str
    hint: str
    expire_ms: int | None
    create_ms: int


@dataclass(frozen=True, slots=True)
class EventType:
    """An entry of the catalogue, as it stood after the catalogue's change numbered `version`."""

    name: str
    description: str
    audience_required: bool
    create_ms: int
    update_ms: int
    version: int

    @property
    def etag(self) -> str:
        """Changes with every change; says nothing else."""
        return _etag(self.name, self.version, self.update_ms)


@dataclass(frozen=True, slots=True)
class Put:
    """A subscription as it now is, with its live secrets of all schemes, the newest first, and its credential's secret member."""

    subscription: Subscription
    secrets: tuple[SigningSecret, ...]
    credential_secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Deleted:
    """A subscription that is gone since `revision`."""

    id: SubscriptionId
    revision: int


class ResumePoint(NamedTuple):
    """A place in the history of the subscriptions: a revision, and the random id of the change that took it."""

    revision: int
    change_id: str


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Everything up to a point in the history of the registry `registry_id` has been told."""

    point: ResumePoint
    registry_id: str


WatchItem = Put | Deleted | Checkpoint


def _etag(name: str, number: int, update_ms: int) -> str:
    # The time too: a registry that was restored from an older copy counts up to the same number again.
    return hashlib.blake2b(f"{name}@{number}@{update_ms}".encode(), digest_size=10).hexdigest()
