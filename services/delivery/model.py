"""Model: the types that the rooms of delivery share."""

import enum
import hashlib
import struct
from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

from services.eventlog.record import Record

ENCODER_VERSION = 1
"""The encoder of new deliveries, by its number in `request.event_encoder.ENCODERS`."""

_PARTITION_BITS = 10
_PARTITION_MASK = (1 << _PARTITION_BITS) - 1
# The lower 64 bits of a delivery's id: the hash, the variant with each slot, and the partition by the last digits of an event's id.
_HASH_LOW = ((1 << 44) - 1) << 18
_SLOTS = {f"{slot:02x}": 0b10 << 62 | slot << _PARTITION_BITS for slot in range(256)}
_PARTITIONS = {f"{low:03x}": low & _PARTITION_MASK for low in range(4096)}
_new_hash = hashlib.blake2b(digest_size=10).copy
_unpack, _pack = struct.Struct(">HQ").unpack, struct.Struct(">6sHQ").pack
_from_hex = bytes.fromhex


class State(enum.IntEnum):
    """The state of a delivery; the numbers are stored."""

    PENDING = 1
    DELIVERED = 2
    EXHAUSTED = 3
    CANCELLED = 4


class Phase(enum.IntEnum):
    """Where a delivery in memory stands. `dispatch/lifecycle.py` has the transitions."""

    HELD = 0
    """In memory, and in no queue yet: just made, just read back, or to be recorded before it is sent."""
    QUEUED = 1
    """In its lane's queue."""
    IN_FLIGHT = 2
    """Its attempt is under way."""
    RETRYING = 3
    """Its attempt has failed, and the next one is due later."""
    WITHDRAWN = 4
    """Its attempt was withdrawn before it began."""
    SPILLED = 5
    """It waits as a row only, because its lane has no room or may not send."""
    ENDED = 6
    """It is delivered, exhausted or cancelled, as its `state` says."""
    RELEASED = 7
    """It is out of memory: only its row in the ledger is left."""


class Secret(NamedTuple):
    """A signing secret as raw bytes, and until when it signs (ms since 1970; None: without end)."""

    key: bytes
    expires_ms: int | None


class SubscriptionStatus(enum.Enum):
    """Whether delivery keeps and sends the events of a subscription."""

    ACTIVE = "send"
    PAUSED = "keep, do not send"
    OFF = "neither keep nor send"


class ContentMode(enum.Enum):
    """How an event is put into a request."""

    # Each member exists once, and the hash of an object is faster to compute than the hash of a name.
    __hash__ = object.__hash__

    STRUCTURED = "the whole event as JSON"
    BINARY = "the data, and the attributes as headers"
    DATA_ONLY = "the data, and nothing of CloudEvents"


class Content(NamedTuple):
    """A body and its headers, with names in lower case. An event without data may have no content-type."""

    headers: dict[str, str]
    body: bytes


class Attempt(NamedTuple):
    """One attempt and its outcome."""

    started_ms: int
    duration_ms: int
    outcome: int
    """The number in the contract's `AttemptOutcome`, which is the same in `transport.protocol.Outcome`."""
    status: int
    error: str
    body: str


@dataclass(slots=True, eq=False)
class Event:
    """An event in memory, with its encoded contents once they are made; its deliveries share it."""

    record: Record
    contents: dict[ContentMode, Content] = field(default_factory=dict)
    """By one encoder: deliveries that share an event were routed together, or are one delivery that was read back."""
    size_bytes: int = field(init=False)
    """About how much memory its delivery takes: the event as it is in the log, and once more as the encoded body."""

    def __post_init__(self) -> None:
        self.size_bytes = 2 * len(self.record.event) + 500


@dataclass(slots=True, eq=False)
class Delivery:
    """One event for one subscription, while it is in memory. Only `dispatch/lifecycle.py` changes its phase, state, times and event."""

    id: bytes
    """16 bytes; `delivery_id` derives them."""
    event_id: str
    shard: int
    partition: int
    position: int
    event_type: str
    accepted_ms: int
    subscription_id: str
    consumer_id: str
    revision: int
    event: Event | None
    """None if only the delivery's row is needed."""
    body_mode: ContentMode = ContentMode.STRUCTURED
    """The content mode of its subscription when it was routed, so that all attempts send the same bytes."""
    chunk: "Chunk | None" = None
    """The chunk in which it was routed; None after that chunk's flush has begun, or if it was read from an owed range."""
    encoder: int = ENCODER_VERSION
    """The encoder that makes its body, also after another encoder has become the one for new deliveries."""
    phase: Phase = field(default=Phase.HELD, init=False)
    state: State = State.PENDING
    """What the ledger shows: PENDING until the delivery ends."""
    attempts: list[Attempt] = field(default_factory=list)
    due_ms: int = 0
    """When the next attempt is due, in ms by the due clock; 0 before the first."""
    failed_sink: int = 0
    """The fingerprint of the sink at which the latest attempt failed, as `sink_fingerprint` returns it; 0 before the first failure."""
    finished_ms: int = 0
    recorded: bool = False
    """Whether the ledger has a row for it."""
    sent_at: float | None = None
    """When the attempt began whose end is not in the ledger yet, by the monotonic clock, in seconds; None if there is no such attempt."""
    owed: "OwedRange | None" = None
    """The range from which it was read; None if it was routed, or once the flush that writes it has begun."""
    job_id: str = ""
    """The replay or the start in the past that hands the event out; empty: the subscription itself."""
    order_key: bytes = b""
    """The key within which its subscription keeps the order of events; empty: no order."""

    @property
    def size_bytes(self) -> int:
        """About how much memory the delivery takes."""
        return self.event.size_bytes if self.event is not None else 500


@dataclass(slots=True, eq=False)
class OwedRange:
    """An interval of the log, (at, until], whose events have no row of a lane yet. Only `dispatch/owed_ranges.py` changes it.

    Its events wait in the log. Pages of the log are handed out to the lane's queue; the recorder writes what was handed out, in the
    order of positions, and moves `at` in the same flush.
    """

    subscription_id: str
    seq: int
    """The number of the range among those of its lane and job; it grows."""
    job_id: str = ""
    """What the range is for: "" for the events that the lane owes since it is behind."""
    at: int | None = None
    """All events up to this position have a row, or do not match; None: no event was passed by yet."""
    until: int | None = None
    """The last position; None while the lane is behind, so that the range has no end."""
    opened_ms: int = 0
    """When it was opened, in ms since 1970."""
    read_through: int = 0
    """How far pages were handed out; not stored."""
    handed: "deque[Delivery]" = field(default_factory=deque)  # bounded: by `owed_ranges.HANDED_MAX`
    """What was handed out and is not written, in the order of positions."""
    record_first: int = 0
    """How many more of its deliveries are recorded before they are sent, because they may have been sent before a crash."""
    is_start: bool = False
    """Whether its lane begins with it, at a start in the past."""
    begun: bool = False
    """Whether the flush of its first event has begun; before that no row of it is written."""
    written: tuple[int, int | None] | None = None
    """Its `at` and `until` in the ledger; None: the ledger has no row of it."""
    cancelled_through: int | None = None
    """The next flush ends it with its events up to this position, because its lane's subscription is deleted or off; None: it goes on."""
    overtaken: int = 0
    """The log drops its events up to this position soon: what was not handed out of them ends as exhausted; 0: no event is dropped."""
    matched: int = 0
    """How many events were handed out in all."""
    examined: int = 0
    """Of how many positions."""
    is_waiting: bool = False
    """Whether nothing can be read until more is recorded."""
    consumer_id: str = ""
    """The subscription's owner."""


@dataclass(slots=True, eq=False)
class Chunk:
    """Some or all deliveries of one event; the cursor moves by whole chunks."""

    shard: int
    position: int
    event_id: str
    through: str
    """The id of the last subscription in the chunk; empty if it is the event's last chunk."""
    deliveries: list[Delivery]
    routed_at: float
    """When it was routed, in seconds of the monotonic clock."""
    record_first: bool
    """Whether its deliveries may be sent only after they are recorded."""
    unsettled: int = 0
    """How many of its deliveries are not settled: held, queued or in flight."""
    begins: "list[OwedRange] | None" = None
    """The ranges that begin with its event; None: no range does."""
    cancels: "list[OwedRange] | None" = None
    """The ranges that are cancelled once its event is recorded; None: no range is."""


def delivery_id(event_id: str, subscription_id: str, job_id: str = "", nth: int = 0) -> bytes:
    """Return a delivery's id, a UUID of version 8 (RFC 9562): the event's time, a hash of the key, the slot, and the partition.

    In bits: time of the event's id 48, version 4, hash 12, variant 2, hash 44, slot of the subscription 8, partition of the event 10.

    The same key gives the same id, so routing again after a crash finds the same delivery. Ids sort by the events' time, so that indexes
    grow at their end. If the ledger holds another key under the id, `nth` from 1 on gives the key's further ids.
    """
    # This runs for every delivery: to copy a new hash is faster than to make one, and to look a number up is faster than to parse it.
    hashing = _new_hash()
    hashing.update((f"{event_id} {subscription_id} {job_id} {nth}" if nth else f"{event_id} {subscription_id} {job_id}").encode())
    high, low = _unpack(hashing.digest())
    low = low & _HASH_LOW | _SLOTS[subscription_id[-2:]] | _PARTITIONS[event_id[-3:]]
    return _pack(_from_hex(event_id[4:16]), high & 0x0FFF | 0x8000, low)


def slot_of_delivery(delivery_id: bytes) -> int:
    """Return the slot that a delivery's id names."""
    return int.from_bytes(delivery_id[-3:], "big") >> _PARTITION_BITS & 0xFF


def partition_of(delivery_id: bytes) -> int:
    """Return the partition that a delivery's id names."""
    return int.from_bytes(delivery_id[-2:], "big") & _PARTITION_MASK
