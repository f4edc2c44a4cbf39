"""Shared batches: the newest messages of the log as the bytes that came, with the places between them.

log_relay → [shared_batches]

Law 1: pure.
Law 2: the batches continue each other without a gap, and they are bounded in bytes. The oldest are dropped first.
"""

from collections import deque
from collections.abc import Mapping
from typing import NamedTuple

from services.eventlog.record import ShardPosition

BYTES_MAX = 8 * 1024 * 1024
# What a batch takes in memory besides its bytes, so that many small batches are bounded too.
_BATCH_BYTES = 1024

Place = Mapping[int, ShardPosition]
"""A place in the log: the last record of each shard."""


class Batch(NamedTuple):
    """The records between two places."""

    after: Place
    through: Place
    message: bytes
    """A whole FollowLogResponse."""

    @property
    def size_bytes(self) -> int:
        """How much memory it takes."""
        return len(self.message) + _BATCH_BYTES


class SharedBatches:
    """Batches with consecutive numbers."""

    def __init__(self, start: Place, bytes_max: int = BYTES_MAX) -> None:
        """Begin empty, at a place."""
        self._bytes_max = bytes_max
        self._batches: deque[Batch] = deque()  # bounded: in bytes, by `add`
        self._first = 0
        self._near = 0
        self._bytes = 0
        self._near_bytes = 0
        self._through = start

    @property
    def through(self) -> Place:
        """The place of the last record."""
        return self._through

    @property
    def end(self) -> int:
        """The number of the next batch."""
        return self._first + len(self._batches)

    def add(self, through: Place, message: bytes) -> None:
        """Add the next message, whose last records are at `through`; drop the oldest while there are too many bytes."""
        batch = Batch(self._through, through, message)
        self._batches.append(batch)
        self._bytes += batch.size_bytes
        self._near_bytes += batch.size_bytes
        self._through = through
        while self._near_bytes * 2 > self._bytes_max and self._near < self.end:
            self._near_bytes -= self._batches[self._near - self._first].size_bytes
            self._near += 1
        while self._bytes > self._bytes_max and len(self._batches) > 1:
            self._bytes -= self._batches.popleft().size_bytes
            self._first += 1

    def at(self, number: int) -> Batch | None:
        """Return a batch; None if it was dropped. The number must be below `end`."""
        return self._batches[number - self._first] if number >= self._first else None

    def begin(self, place: Place) -> int | None:
        """Return the batch with which a reader at `place` goes on; None if it is too far behind.

        A reader may join if it is at most half of the bytes behind, so that it does not fall out again at once. The first batch may
        begin before `place`: `rest_of` leaves out the records that the reader has.
        """
        near = self._through if self._near == self.end else self._batches[self._near - self._first].after
        if any(place[shard].position < at.position for shard, at in near.items()):
            return None
        number = self.end
        while number > self._near and not _holds(place, self._batches[number - 1 - self._first].through):
            number -= 1
        return number


def _holds(place: Place, through: Place) -> bool:
    """Return whether a reader at `place` has everything up to `through`."""
    return all(place[shard].position >= at.position for shard, at in through.items())


def is_at_or_before(place: Place, after: Place) -> bool:
    """Return whether a reader at `place` has nothing that comes after `after`."""
    return place is after or all(place[shard].position <= at.position for shard, at in after.items())


def later(place: Place, other: Place) -> Place:
    """Return the later position of each shard."""
    return {shard: max(at, other[shard], key=_position) for shard, at in place.items()}


def _position(at: ShardPosition) -> int:
    return at.position
