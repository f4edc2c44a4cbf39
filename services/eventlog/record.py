"""Record: the values of the event log: records, new events, results, places and lag.

These are named tuples, not dataclasses: the hot path makes them for every event, and a named tuple costs a third of a frozen dataclass.
"""

import zlib
from collections.abc import Sequence
from typing import NamedTuple

PARTITIONS = 256
NO_PARTITION = 1023
"""The partition in the id of an event that is in no log. The numbers from `PARTITIONS` up to it are reserved: no event has them."""
_PARTITION_MASK = 0x3FF


class Record(NamedTuple):
    """An accepted event with its position in the log."""

    shard: int
    """The append shard: a set of partitions with one order of appends. A log in one file has one shard, number 0."""
    partition: int
    position: int
    event_id: str
    type: str
    source: str
    audience: str
    """The id of the one consumer that the event is for; empty: for all consumers."""
    accepted_ms: int
    event: bytes
    """The event as the bytes of a `hooktide.event.v1.CloudEvent`."""


class NewEvent(NamedTuple):
    """A valid event that is to be appended."""

    partition: int
    source: str
    id: str
    """The emitter's own id. The log deduplicates events by `source` and `id`."""
    type: str
    audience: str
    digest: bytes
    """A digest of all content that two events of one id must share to be the same event."""
    event: bytes


class Appended(NamedTuple):
    """The durable position of an event."""

    event_id: str
    partition: int
    position: int
    duplicate: bool


class Conflict(NamedTuple):
    """The refusal of an event, because another event of the same source and id was accepted before."""

    event_id: str
    """The id that the log gave to the other event."""


class ShardPosition(NamedTuple):
    """A position in one append shard; 0 is the position before the first record. A place in the log is one such position a shard."""

    shard: int
    position: int
    event_id: str = ""
    """The id of the event at this position, if it is known; the log compares it with its own."""
    following_id: str = ""
    """The id of the shard's next event, if a reader has handled a part of that event; the log compares it as well."""


class SlotProgress(NamedTuple):
    """How far the reader of some slots has come. A slot is a share of the subscriptions."""

    slots: Sequence[int]
    """The slots; empty: all."""
    recorded: Sequence[ShardPosition]
    """The place up to which everything is in the reader's own store, with the ids of the events there."""
    released: Sequence[ShardPosition]
    """The place up to which the reader needs no record any more."""


class ResumePoint(NamedTuple):
    """The point where a reader resumes in a shard."""

    position: ShardPosition
    """The last record that the reader has handled, with its event id."""
    following: int
    """How many records of the shard come after that position."""
    unreleased: int
    """How many of those records are not released."""


class Lag(NamedTuple):
    """How many events of the log its reader has not routed."""

    events: int
    """How many events the log holds at most from the oldest event that is not routed to the newest event; 0: all are routed."""
    oldest_ms: int | None
    """When that oldest event was accepted; None: all are routed."""


def partition_of_event_id(event_id: str) -> int:
    """Return the partition in a well-formed event id, which are its lowest 10 bits; `NO_PARTITION` if the event is in no log."""
    return int(event_id[-3:], 16) & _PARTITION_MASK


def partition_of(key: str) -> int:
    """Return the partition of a key: the CRC-32 of its UTF-8 bytes modulo `PARTITIONS`. This mapping must never change."""
    return zlib.crc32(key.encode("utf-8", "surrogatepass")) % PARTITIONS
