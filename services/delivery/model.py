"""Model: the words of delivery."""

import enum
import hashlib
from dataclasses import dataclass, field
from typing import NamedTuple

from services.eventlog.record import Record

ENCODER_VERSION = 1


class State(enum.IntEnum):
    """What has become of a delivery; the numbers are stored."""

    PENDING = 1
    DELIVERED = 2
    EXHAUSTED = 3
    CANCELLED = 4


class Secret(NamedTuple):
    """A signing secret as raw bytes, and until when it signs (ms since 1970; None: open)."""

    key: bytes
    expires_ms: int | None


class Health(enum.Enum):
    """Whether a subscription's lane may send."""

    ACTIVE = "send"
    PAUSED = "keep, do not send"
    OFF = "neither keep nor send"


class ContentMode(enum.Enum):
    """How an event is put into a request."""

    # There is one of each, and the hash of a name is slower than that of an object.
    __hash__ = object.__hash__

    STRUCTURED = "the whole event as JSON"
    BINARY = "the data, and the attributes as headers"
    DATA_ONLY = "the data, and nothing of CloudEvents"


class Content(NamedTuple):
    """A body, and the headers that belong to it, with names in lower case. Without data there may be no content-type."""

    headers: dict[str, str]
    body: bytes


class Attempt(NamedTuple):
    """One HTTP request and its end."""

    started_ms: int
    duration_ms: int
    outcome: int
    """Its number in the contract's `AttemptOutcome`, which is also that of `transport.protocol.Outcome`."""
    status: int
    error: str
    body: str


@dataclass(slots=True, eq=False)
class Event:
    """An event in memory, with what it is sent as once that is encoded; shared by its deliveries."""

    record: Record
    contents: dict[ContentMode, Content] = field(default_factory=dict)
    size_bytes: int = field(init=False)
    """About how much memory a delivery of it takes: the event as it stands in the log, and once more as the body that is made of it."""

    def __post_init__(self) -> None:
        self.size_bytes = 2 * len(self.record.event) + 500


@dataclass(slots=True, eq=False)
class Delivery:
    """One event for one subscription, while it is in memory."""

    id: bytes
    """16 bytes; `delivery_id` derives them."""
    event_id: str
    partition: int
    position: int
    event_type: str
    accepted_ms: int
    subscription_id: str
    consumer_id: str
    revision: int
    event: Event | None
    """None while only its row is wanted."""
    body_mode: ContentMode = ContentMode.STRUCTURED
    """That of its subscription when it was routed: all its attempts send the same bytes."""
    chunk: "Chunk | None" = None
    """What it was routed in, until that is flushed."""
    state: State = State.PENDING
    attempts: list[Attempt] = field(default_factory=list)
    due_ms: int = 0
    """When the next attempt is due; 0 before the first."""
    finished_ms: int = 0
    recorded: bool = False
    """Whether the ledger has a row of it."""
    sent: bool = False
    """Whether an attempt was started of which the ledger does not know the end."""
    sent_at: float = 0.0
    """When the latest attempt began, by the monotonic clock, in seconds."""
    settled: bool = False
    """Whether it waits for its flush: finished, due later, or spilled; else it is queued or under way."""
    spilled: bool = False
    """Whether it is settled because its lane had no room for it."""

    @property
    def size_bytes(self) -> int:
        """About how much memory it takes."""
        return self.event.size_bytes if self.event is not None else 500


@dataclass(slots=True, eq=False)
class Chunk:
    """Some or all of one event's deliveries: the unit by which the cursor moves."""

    partition: int
    position: int
    event_id: str
    through: str
    """The id of the last subscription in it; empty where the event ends with it."""
    deliveries: list[Delivery]
    routed_at: float
    """By the monotonic clock, in seconds."""
    record_first: bool
    """Whether its deliveries may be sent only once they are recorded."""
    unsettled: int = 0
    """How many of its deliveries are queued or under way."""


def delivery_id(event_id: str, subscription_id: str, replay_id: str = "") -> bytes:
    """Return a delivery's id: a UUID of version 8 (RFC 9562) from the event's own time and a hash of the key.

    The same key gives the same id, so routing again after a crash finds the same delivery; and ids sort by
    the events' time, so that indexes grow at their end.
    """
    digest = hashlib.blake2b(f"{event_id} {subscription_id} {replay_id}".encode(), digest_size=10).digest()
    raw = bytearray(bytes.fromhex(event_id[4:16]) + digest)
    raw[6] = raw[6] & 0x0F | 0x80
    raw[8] = raw[8] & 0x3F | 0x80
    return bytes(raw)
