"""Tail: the newest records of a log, in memory; readers wait here for newer records.

writer → log → [tail] → readers

A reader that keeps up never reads the file. A reader that has fallen behind the tail reads the file until it has caught up.
"""

import asyncio
from bisect import bisect_right
from collections.abc import Sequence

from services.eventlog.record import Record

# Delivery leaves a backlog in the log. Reading the backlog from memory costs a third of reading it from the file.
_BYTES_MAX = 32 * 1024 * 1024
_RECORDS_MAX = 16_384


def _position(record: Record) -> int:
    return record.position


class Tail:
    """The records after position `start` up to position `end`, without a gap."""

    def __init__(self, head: int) -> None:
        """Begin empty, at the log's present head."""
        self.start = head
        self.end = head
        self._records: list[Record] = []
        self._bytes = 0
        self._grown: asyncio.Future[None] | None = None

    def extend(self, records: Sequence[Record]) -> None:
        """Add new records; drop the oldest half while there are too many records or bytes."""
        self._records += records
        self._bytes += sum([len(record.event) for record in records])
        self.end = records[-1].position
        while len(self._records) > _RECORDS_MAX or (self._bytes > _BYTES_MAX and len(self._records) > 1):
            half = (len(self._records) + 1) // 2
            self._bytes -= sum([len(record.event) for record in self._records[:half]])
            self.start = self._records[half - 1].position
            del self._records[:half]
        self.wake()

    def after(self, position: int, records_max: int, bytes_max: int) -> Sequence[Record]:
        """Return the next records after a position that is not before `start`, bounded in count and bytes (at least one)."""
        first = bisect_right(self._records, position, key=_position)
        found, size = [], 0
        for record in self._records[first : first + records_max]:
            found.append(record)
            size += len(record.event)
            if size >= bytes_max:
                break
        return found

    async def wait_for_growth(self) -> None:
        """Wait until the log grows, or `wake` is called."""
        if self._grown is None:
            self._grown = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._grown)

    def wake(self) -> None:
        """Wake all readers that wait."""
        if self._grown is not None and not self._grown.done():
            self._grown.set_result(None)
        self._grown = None
