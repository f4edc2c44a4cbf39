"""Protocol: the two Protocols of the event log, for reading and for appending. One conformance suite runs over every engine.

Law 1: `append` returns only after the events are durable.
Law 2: positions of a partition grow strictly and become visible in order. After a reader has seen a position, no lower position
of that partition appears later.
Law 3: a record that its reader has not released is never trimmed.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from services.eventlog.record import Appended, Conflict, Lag, NewEvent, Place, Record, ResumePoint


class Following(Protocol):
    """A log that a reader follows."""

    @property
    def log_id(self) -> str:
        """The identity of the log, which it was given when it was created."""
        ...

    @property
    def heads(self) -> dict[int, int]:
        """For each followed partition, its last position at the moment when the following began."""
        ...

    def batches(self) -> AsyncIterator[Sequence[Record]]:
        """Yield records after the given places, then new records, in order within each partition; never ends by itself.

        Raises `LogUnavailableError` when the log becomes unreachable or closes.
        """
        ...


class EventLogReader(Protocol):
    """Reads events."""

    def follow(self, after: Sequence[Place], *, log_id: str = "", batch_records_max: int = 500) -> AbstractAsyncContextManager[Following]:
        """Follow the partitions of `after`, each from its place (exclusive).

        Raises `AnotherLogError` if `log_id` is given and is not the log's.

        Raises `PositionMismatchError`, with all affected partitions, in three cases. A place carries an event id that the log does not
        hold there (or right after it, for `following_id`). A place lies beyond the head of the log. A place lies before what was released,
        unless its reader begins anew and names neither log nor event.
        """
        ...

    async def fetch(self, places: Sequence[Place]) -> list[Record]:
        """Return the records at `places` that still exist, in the order of `places`."""
        ...

    async def release(self, released: Sequence[Place], recorded: Sequence[Place] = ()) -> list[Place]:
        """Release the records up to these places (inclusive), which this reader no longer needs; return up to where records expired.

        `recorded` holds the places that the reader's store has reached. If the log does not hold a partition's record at that place,
        nothing of that partition is released.
        """
        ...

    async def rewind(self, places: Sequence[Place]) -> None:
        """Undo the release of records after these places, since their reader begins there again."""
        ...

    async def resume_points(self, after: Sequence[Place]) -> tuple[str, list[ResumePoint]]:
        """Return the log's identity and the points where a reader resumes after the events with these ids, whatever their old positions."""
        ...

    async def report_routed(self, routed: Sequence[Place]) -> Lag:
        """Report each partition's last routed event, with its id; return how many events are not routed. The report is not durable."""
        ...


class EventLog(EventLogReader, Protocol):
    """Reads and appends events."""

    async def append(self, events: Sequence[NewEvent]) -> list[Appended | Conflict]:
        """Append events in one transaction; return one result per event, in order, once the events are durable.

        Raises `LogFullError`, `StorageFullError` or `LogUnavailableError` (nothing was appended), or `LogClosedError` (outcome unknown).
        """
        ...

    async def trim(self, *, before_ms: int) -> int:
        """Delete the released records that were accepted before a time (ms since 1970); return how many were deleted."""
        ...
