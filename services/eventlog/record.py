"""Record: the words of the event log.

These are named tuples, not dataclasses: one is made for every event on the hot path, and a tuple
costs a third of a frozen dataclass.
"""

import zlib
from typing import NamedTuple

PARTITIONS = 64


class Record(NamedTuple):
    """An accepted event where it stands in the log."""

    partition: int
    position: int
    event_id: str
    type: str
    source: str
    audience: str
    """The one consumer that the event is for; empty: for all."""
    accepted_ms: int
    event: bytes
    """The event as the bytes of a `hooktide.event.v1.CloudEvent`."""


class NewEvent(NamedTuple):
    """A valid event about to be appended."""

    partition: int
    source: str
    id: str
    """The emitter's own id; with `source` what the log deduplicates by."""
    type: str
    audience: str
    digest: bytes
    """Over everything that makes two events of one id the same event."""
    event: bytes


class Appended(NamedTuple):
    """Where an event stands, durably."""

    event_id: str
    partition: int
    position: int
    duplicate: bool


class Conflict(NamedTuple):
    """An event refused because another event of the same source and id was accepted before."""

    event_id: str
    """The id of that other event."""


class Place(NamedTuple):
    """A point in a partition; position 0 stands before the first record."""

    partition: int
    position: int
    event_id: str = ""
    """The id of the event that stands there, where it is known; readers compare it with the log's."""
    following_id: str = ""
    """The id of the event at the next position, where a reader has handled a part of that event; compared as well."""


class ResumePoint(NamedTuple):
    """Where a reader goes on in a partition."""

    place: Place
    """The last record that it has handled, with its id."""
    following: int
    """How many records of the partition come after that."""
    unreleased: int
    """How many of those no reader has released."""


class Lag(NamedTuple):
    """How much of the log its reader has not routed."""

    events: int
    """From the oldest one that is not routed to the newest; 0: all are routed."""
    oldest_ms: int | None
    """When that oldest event was accepted; None: all are routed."""


def partition_of(key: str) -> int:
    """Return the partition of a key: the CRC-32 of its UTF-8 bytes modulo `PARTITIONS`. Never to be changed."""
    return zlib.crc32(key.encode("utf-8", "surrogatepass")) % PARTITIONS
