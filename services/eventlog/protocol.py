"""Protocol: what callers may ask of an event log, cut by what each caller needs. One conformance suite runs over every engine.

| Protocol | used by |
|---|---|
| `EventAppender` | ingest, for emitters |
| `EventReader`, `ReaderProgress`; together `EventLogReader` | delivery |
| `EventHistory` | ingest, for listings |
| `EventLogMaintenance` | ingest, at intervals |
| `EventLog`: all of them | ingest, which owns the log |

`EventReader` changes nothing, so that a reader may have a right to read only. An engine may keep several orders of appends, each
for a shard: some of the partitions. Hence a place in the log is one position for each shard, no promise compares positions of two shards,
and positions need not be dense. Callers give exactly one position for each shard of the log, and slots (empty: all) without repetition.

Law 1: `append` returns only after its events are durable; for a duplicate, after the first event is.
Law 2: positions of a shard grow strictly and become visible in order, and event ids grow with them. After a reader has seen a
position, no lower position of that shard appears later.
Law 3: a record that the reader of a slot has not released is never trimmed. A slot that was never reported has released nothing.
Law 4: a batch, a bounded fetch and a page of the history hold at most `BATCH_BYTES_MAX` bytes of events, or one larger event.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from services.eventlog.filtered_read import ReadPage, ReadQuery
from services.eventlog.history import EventPage, EventQuery
from services.eventlog.record import Appended, Conflict, Lag, NewEvent, Record, ResumePoint, ShardPosition, SlotProgress
from services.runtime.consumer_scope import Scope

# Below the largest message that gRPC lets pass, 4 MiB.
BATCH_BYTES_MAX = 3 * 1024 * 1024


class Following(Protocol):
    """A log that a reader follows."""

    @property
    def log_id(self) -> str:
        """The identity of the log, which it was given when it was created."""
        ...

    @property
    def retention_s(self) -> float:
        """How long the log keeps its records, in seconds, from their acceptance. A change ends the following."""
        ...

    @property
    def heads(self) -> dict[int, int]:
        """For each shard, a position that separates the records of the moment when the following began from later ones.

        No record of that moment has a higher position, and every later record of the shard has.
        """
        ...

    def batches(self) -> AsyncIterator[Sequence[Record]]:
        """Yield records after the given place, then new records, in order within each shard; never ends by itself.

        Raises `LogUnavailableError` when the log becomes unreachable or closes.
        """
        ...


class EventReader(Protocol):
    """Reads events in the order of the log, and changes nothing."""

    def follow(
        self, after: Sequence[ShardPosition], *, slots: Sequence[int] = (), log_id: str = "", batch_records_max: int = 500
    ) -> AbstractAsyncContextManager[Following]:
        """Follow the log from a place (exclusive), as the reader of some slots.

        Raises `AnotherLogError` if `log_id` is given and is not the log's.

        Raises `PositionMismatchError`, with all affected shards, in three cases. A position carries an event id that the log does not
        hold there (or next after it, for `following_id`). A position lies beyond the head of the log. A position lies before what one of
        the slots has released, unless the reader begins anew and names neither log nor event.
        """
        ...

    async def read(self, query: ReadQuery) -> ReadPage:
        """Return the next page of the records in a range that match a filter; see `ReadQuery` and `ReadPage`.

        A page examines a bounded number of records for a bounded time. So it may hold fewer records than the limit, or none, before the
        range ends. Raises `LogUnavailableError`, also if too many reads wait.
        """
        ...

    async def fetch(self, places: Sequence[ShardPosition]) -> list[Record]:
        """Return the records at `places` that still exist, in the order of `places`."""
        ...

    async def resume_points(self, after: Sequence[ShardPosition], slots: Sequence[int] = ()) -> tuple[str, list[ResumePoint]]:
        """Return the log's identity and the points where the reader of some slots resumes after the events with these ids.

        The positions of `after` do not matter.
        """
        ...


class ReaderProgress(Protocol):
    """Takes a reader's reports of how far it has come."""

    async def release(self, progress: Sequence[SlotProgress]) -> list[ShardPosition]:
        """Release for slots the records that they no longer need; return the place up to where records have expired.

        Nothing of a shard is released, and nothing stored, in two cases. The log does not hold the shard's record at `recorded`. Or that
        place is before what the log has stored as recorded, because the reader's store is an older copy. `recorded` bounds `released`.
        """
        ...

    async def rewind(self, rewound: Sequence[SlotProgress]) -> None:
        """Take back what slots have recorded and released after these places, since their reader begins there again."""
        ...

    async def report_routed(self, routed: Sequence[ShardPosition], slots: Sequence[int] = ()) -> Lag:
        """Report the last routed event of each shard, with its id; return how many events are not routed. The report is not durable."""
        ...


class EventLogReader(EventReader, ReaderProgress, Protocol):
    """Follows the log and reports its progress: what delivery needs of a log."""


class EventAppender(Protocol):
    """Appends events."""

    @property
    def why_refusing(self) -> str | None:
        """Why the latest append was refused for lack of room; None if it was not refused, or if there is room again."""
        ...

    async def append(self, events: Sequence[NewEvent]) -> list[Appended | Conflict]:
        """Append events; return one result per event, in order, once the events are durable.

        An event whose source and id the log holds is not appended again. With the same digest, the result is the first event's, marked as
        a duplicate; with another digest, it is a conflict. Events of one partition keep the order of the calls.

        Raises `LogFullError`, `StorageFullError` or `LogUnavailableError` (nothing was appended), or `LogClosedError` (outcome unknown).
        """
        ...


class EventHistory(Protocol):
    """Answers questions about single events. An event without an audience is in every scope, any other in that of its audience.

    Scopes take turns, so that a consumer with many questions delays only itself.
    """

    async def locate(self, scope: Scope, event_id: str) -> Record | None:
        """Return the record of a well-formed event id; None if the log does not hold it, or no longer, or it is outside the scope."""
        ...

    async def newest(self, query: EventQuery) -> EventPage:
        """Return a page of the records that match a query, the newest first.

        A page examines a bounded number of records. So a page may hold fewer records than the limit, or none, and still have a next page.
        """
        ...


class EventLogMaintenance(Protocol):
    """Keeps a log within its bounds, and tells how full it is."""

    async def lag(self) -> Lag:
        """Return how many events are not routed, by the latest reports; while a slot has not reported, how many are not released."""
        ...

    async def check_room(self) -> None:
        """After a refusal for lack of room, check whether there is room again. Raises `StorageFullError` while the disk is full."""
        ...

    async def trim(self, *, before_ms: int) -> int:
        """Delete released records that were accepted before a time (ms since 1970); return how many were deleted.

        An engine that deletes many records at once, as whole days, may keep some of them for longer.
        """
        ...

    async def used_bytes(self) -> int:
        """Return how many bytes the log takes on disk."""
        ...

    def change_limits(self, *, bytes_max: int, retention_s: float) -> None:
        """Use another size limit and another retention from now on."""
        ...

    def end_following(self) -> None:
        """End every following with `LogUnavailableError`, since this log is about to close."""
        ...


class EventLog(EventLogReader, EventAppender, EventHistory, EventLogMaintenance, Protocol):
    """All that ingest calls on the log that it owns."""

    async def fetch_bounded(self, places: Sequence[ShardPosition]) -> tuple[list[Record], bool]:
        """Read as `fetch` does, up to `BATCH_BYTES_MAX` (at least one record); return the records, and whether all places were read."""
        ...
