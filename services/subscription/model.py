"""Model: the registry's entities, as values.

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


class Ordering(Enum):
    """In which order a subscription's events are delivered: in none, or for each key in the order of the log."""

    NONE = "none"
    KEY = "key"


class StartPoint(Enum):
    """A point of the log at which a subscription begins: with the events after its creation, or with the oldest that the log has."""

    NOW = "now"
    BEGINNING = "beginning"


Start = StartPoint | int
"""A point, or the time of acceptance, in ms since 1970, of the first event."""


class Role(Enum):
    """What an API key may do."""

    ADMIN = "admin"
    EMITTER = "emitter"
    CONSUMER = "consumer"


class VerificationPolicy(Enum):
    """The operator's policy for sink verification (the handshake).

    OFF: no sink is asked for consent. REQUIRED: a sink receives events only with its consent. BEST_EFFORT: a sink receives events, and
    is asked as well.
    """

    OFF = "off"
    REQUIRED = "required"
    BEST_EFFORT = "best_effort"


class Consent(Enum):
    """The state of a sink's consent; see the contract's `VerificationState`."""

    PENDING = "pending"
    GRANTED = "granted"
    REFUSED = "refused"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How a failed delivery is tried again. None: the operator's setting. Empty `delays_ms`: it is not tried again."""

    delays_ms: tuple[int, ...] | None = None
    attempts_max: int | None = None
    final_statuses: tuple[int, ...] = ()
    """Sorted, each once."""


@dataclass(frozen=True, slots=True)
class Config:
    """Limits, order, start and a description. None: the operator's setting. `start` never changes."""

    description: str = ""
    rate_per_second: float | None = None
    in_flight_max: int | None = None
    retry: RetryPolicy = RetryPolicy()
    ordering: Ordering = Ordering.NONE
    start: Start = StartPoint.NOW


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
    """The result of a sink verification (the handshake). `rate_per_minute` None: the sink sets no limit."""

    consent: Consent
    rate_per_minute: int | None
    detail: str
    time_ms: int


@dataclass(frozen=True, slots=True)
class Pause:
    """A pause of a subscription, a consumer or the system. Events accepted from it on are kept at least until `kept_until_ms`."""

    time_ms: int
    by: str
    """Who paused: for a subscription, OWNER or OPERATOR; else the administrator's API key, "key_…"."""
    kept_until_ms: int


OWNER, OPERATOR = "its owner", "the operator"


@dataclass(frozen=True, slots=True)
class Subscription:
    """A consumer's registration for events, as it was after the change numbered `revision`. Its credential lacks the secret member."""

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
    pause: Pause | None = None
    """Its own pause, which outlives that it is disabled or unverified."""
    consumer_pause: Pause | None = None
    """The pause of its consumer, which is no part of its own state."""

    @property
    def etag(self) -> str:
        """A text that every change alters, also a pause of its consumer; it has no other meaning."""
        paused_ms = "" if self.consumer_pause is None else f"@{self.consumer_pause.time_ms}"
        return _etag(self.id, self.revision, f"{self.update_ms}{paused_ms}")


@dataclass(frozen=True, slots=True)
class SigningSecret:
    """A secret ("whsec_…") or private key ("whsk_…") that signs webhooks until `expire_ms`."""

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
    pause: Pause | None = None


@dataclass(frozen=True, slots=True)
class Key:
    """An API key, without its clear text. `consumer_id` is set only for the role consumer."""

    id: KeyId
    role: Role
    consumer_id: ConsumerId | None
    name: str
    hint: str
    expire_ms: int | None
    create_ms: int


@dataclass(frozen=True, slots=True)
class EventType:
    """An entry of the catalogue, as it was after the catalogue's change numbered `version`."""

    name: str
    description: str
    audience_required: bool
    create_ms: int
    update_ms: int
    version: int

    @property
    def etag(self) -> str:
        """A text that every change alters; it has no other meaning."""
        return _etag(self.name, self.version, self.update_ms)


@dataclass(frozen=True, slots=True)
class PutSubscription:
    """A subscription in its present state, with its live secrets of all schemes, the newest first, and its credential's secret member."""

    subscription: Subscription
    secrets: tuple[SigningSecret, ...]
    credential_secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class DeletedSubscription:
    """A subscription that the change numbered `revision` deleted."""

    id: SubscriptionId
    revision: int


@dataclass(frozen=True, slots=True)
class ConsumerPause:
    """Whether a consumer is paused."""

    consumer_id: ConsumerId
    paused: bool


@dataclass(frozen=True, slots=True)
class IdempotentCall:
    """The identity of a call that may be sent twice: caller, method, request id ("": not idempotent), and digest of the content."""

    caller: str
    method: str
    request_id: str
    digest: bytes

    @property
    def seal_context(self) -> str:
        """The context that the answer is sealed for; it holds the length of the caller, so that different calls have different contexts."""
        return f"answer/{len(self.caller)}/{self.caller}/{self.method}/{self.request_id}"


class ResumePoint(NamedTuple):
    """A point in the history of the subscriptions: a revision, and the random id of the change that took it."""

    revision: int
    change_id: str


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The watch has delivered everything up to this point in the history of the registry `registry_id`."""

    point: ResumePoint
    registry_id: str
    system_paused: bool = False
    """Whether all deliveries are paused, at this point or a later one."""


WatchItem = PutSubscription | DeletedSubscription | ConsumerPause | Checkpoint


def _etag(name: str, number: int, times_ms: int | str) -> str:
    # The hash includes the time, since a registry that was restored from an older copy reaches the same number again.
    return hashlib.blake2b(f"{name}@{number}@{times_ms}".encode(), digest_size=10).hexdigest()
