"""The two Protocols of the event log. One conformance suite runs over every engine.

Law 1: `append` returns only what is durable.
Law 2: positions of a partition grow strictly and become visible in order; a reader that has seen a
position never sees a lower one appear later.
Law 3: what a reader has not released is never trimmed.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from services.eventlog.record import Appended, Conflict, Lag, NewEvent, Place, Record, ResumePoint


class Following(Protocol):
    """A log being followed."""

    @property
    def log_id(self) -> str:
        """The identity of the log, made when it was created."""
        ...

    @property
    def heads(self) -> dict[int, int]:
        """For each followed partition the position at which it ended when the following began."""
        ...

    def batches(self) -> AsyncIterator[Sequence[Record]]:
        """Yield records after the given places, then those that come, in order within each partition; never ends by itself.

        Raises `LogUnavailableError` when the log is lost.
        """
        ...


class EventLogReader(Protocol):
    """Reads events."""

    def follow(self, after: Sequence[Place], *, log_id: str = "", batch_records_max: int = 500) -> AbstractAsyncContextManager[Following]:
        """Follow the partitions of `after`, each from its place (exclusive).

        Raises `AnotherLogError` if `log_id` is given and is not the log's. Raises `PositionMismatchError`, with all partitions
        concerned, if a place carries an event id that the log does not hold there (or right after it, for `following_id`), or lies
        beyond the partition's head, or before what was released, unless its reader begins anew and names neither log nor event.
        """
        ...

    async def fetch(self, places: Sequence[Place]) -> list[Record]:
        """Return the records at `places` that are still there, in the order asked."""
        ...

    async def release(self, released: Sequence[Place], recorded: Sequence[Place] = ()) -> list[Place]:
        """Say up to where this reader needs nothing more (inclusive); return up to where the log wants to trim.

        `recorded` says where the reader's store stands. Nothing is released of a partition whose record the log does not hold there.
        """
        ...

    async def rewind(self, places: Sequence[Place]) -> None:
        """Take back what was released after these places, since their reader begins there again."""
        ...

    async def resume_points(self, after: Sequence[Place]) -> tuple[str, list[ResumePoint]]:
        """Return the log's identity, and where a reader goes on that has handled the events of these ids, wherever they stood."""
        ...

    async def report_routed(self, routed: Sequence[Place]) -> Lag:
        """Say for each partition which event was routed last, with its id; return what is not routed. The log does not keep it."""
        ...


class EventLog(EventLogReader, Protocol):
    """Reads and appends events."""

    async def append(self, events: Sequence[NewEvent]) -> list[Appended | Conflict]:
        """Append events in one transaction; return once they are durable, one result each, in order.

        Raises `LogFullError`, `StorageFullError` (nothing was appended) or `LogClosedError` (outcome unknown).
        """
        ...

    async def trim(self, *, before_ms: int) -> int:
        """Drop records accepted before a time (ms since 1970) that every reader has released; return how many went."""
        ...
