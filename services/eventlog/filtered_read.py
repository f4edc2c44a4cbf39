"""Filtered read: what a reader asks of a range of the log, and the page that it gets.

A lane that is behind reads so what its subscription would have been told, page after page. The log filters, since most events of a range
match no single subscription.
"""

from collections.abc import Sequence
from typing import NamedTuple

from services.eventlog.record import Record, ShardPosition

# The bounds of one page. The bytes are those of the events; the first record counts even if it is larger.
RECORDS_MAX = 200
BYTES_MAX = 2 * 1024 * 1024
EXAMINED_MAX = 65_536


class ReadQuery(NamedTuple):
    """A range of the log, and which of its records are wanted. Event ids in the two places are not compared."""

    after: Sequence[ShardPosition]
    """Where the range begins, exclusive: each shard to read, once."""
    through: Sequence[ShardPosition] = ()
    """Where the range ends, inclusive: the shards of `after`. Empty: at the log's head at the moment of the call."""
    types: Sequence[str] = ()
    """The patterns of a subscription (`event_types.patterns_of`); empty: every type that is not reserved."""
    source: str = ""
    """The one source that is wanted; empty: any source."""
    audiences: Sequence[str] = ()
    """The audiences that are wanted; "" is the audience of events for all consumers. Empty: any audience."""
    part: int = 0
    """Reserved, 0. With `parts`: only partitions whose number modulo `parts` is `part`."""
    parts: int = 0
    """Reserved, 0 or 1: the partitions are not divided."""
    records_max: int = RECORDS_MAX
    bytes_max: int = BYTES_MAX
    examined_max: int = EXAMINED_MAX


class ReadPage(NamedTuple):
    """The matching records at the beginning of a range."""

    records: list[Record]
    """In order within each shard."""
    scanned_through: list[ShardPosition]
    """How far the page reaches, inclusive: no further record up to here matches. The next page begins after it, until it is at `through`.

    It is never before `after`. It stays at `after` only if the log holds nothing between `after` and `through`, or beyond `after`.
    """
    first_available: list[ShardPosition]
    """For each shard, the lowest position that the log has not dropped; if greater than a position of `after` + 1, records are gone."""
    log_id: str
