"""Model: what the registry keeps, as values.

server → [model] → store

Times are whole milliseconds since 1970-01-01T00:00:00Z.
"""

import hashlib
from dataclasses import dataclass, field
from enum import Enum
from typing import NewType

SubscriptionId = NewType("SubscriptionId", str)
ConsumerId = NewType("ConsumerId", str)
KeyId = NewType("KeyId", str)

EVERY_CONSUMER = "*"


class Protocol(Enum):
    """How events reach the consumer."""

    HTTP = "HTTP"


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


@dataclass(frozen=True, slots=True)
class Subscription:
    """A consumer's wish to be told, as it stood after the change numbered `revision`."""

    id: SubscriptionId
    consumer_id: ConsumerId
    sink: str
    protocol: Protocol
    types: tuple[str, ...]
    source: str
    description: str
    state: State
    state_reason: str
    create_ms: int
    update_ms: int
    revision: int

    @property
    def etag(self) -> str:
        """Changes with every change; says nothing else."""
        return _etag(self.id, self.revision)


@dataclass(frozen=True, slots=True)
class SigningSecret:
    """A secret that webhooks are signed with; it is used until `expire_ms`."""

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
        return _etag(self.name, self.version)


@dataclass(frozen=True, slots=True)
class Put:
    """A subscription as it now is, with its live secrets, the newest first."""

    subscription: Subscription
    secrets: tuple[SigningSecret, ...]


@dataclass(frozen=True, slots=True)
class Deleted:
    """A subscription that is gone since `revision`."""

    id: SubscriptionId
    revision: int


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Everything up to `revision` of the registry `registry_id` has been told."""

    revision: int
    registry_id: str


WatchItem = Put | Deleted | Checkpoint


def _etag(name: str, number: int) -> str:
    return hashlib.blake2b(f"{name}@{number}".encode(), digest_size=10).hexdigest()
