"""Protocol: the ledger, as the worker and the server use it. One conformance suite runs over every engine.

recorder, lane_refill, retention_loop, repair, server → [protocol] → sqlite

Law 1: a flush is one transaction. It writes deliveries together with the cursors that pass their events. Only a flush writes deliveries:
whatever ends one, be it an answer, a cancellation or its expiry, ends it by `Flush.finished`.
Law 2: every transaction that writes first checks the lease's epoch. A worker that has lost its lease writes nothing.
Law 3: a terminal state never changes, and the same flush again changes nothing.
Law 4: a listing never makes a delivery wait.
Law 5: a range moves in the transaction that writes the rows below it, so that after every commit each event is in exactly one place: an
unfinished row, a finished row, an owed range or an ended range. A notice appears in the transaction that makes it true.

Law 6: the first group stands lowest. The slots of other groups are recorded further; they join the first group once it has come that far.

A place in the log is one position for each append shard. A group's cursor adds to each the event there and a `through`.

What other engines need:

- PostgreSQL: `flush` calls one function, which locks the worker's row, compares the epoch, and inserts a row of progress in place of
  updating cursors. If the connection is lost during the commit, the engine asks for the newest row of progress before `flush` returns or
  raises, so callers never see an unknown outcome. Two more methods renew a lease and give it up.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from services.delivery.ledger.rows import (
    DoneRow,
    DueNow,
    EndedRow,
    JobKey,
    JobRow,
    LaneRow,
    NoticeRow,
    OpenRow,
    Positions,
    RangeKey,
    RangeRow,
    RoutingNote,
    SetAsideRow,
    WaitingRow,
)
from services.delivery.model import State
from services.eventlog.record import Record, ShardPosition
from services.runtime.consumer_scope import Scope
from services.runtime.ids import SLOTS

FIRST_GROUP = 1
"""The id of the cursor group that a worker reads from. No group stands lower."""


class ShardCursor(NamedTuple):
    """How far a shard's events are in the ledger: all events before `position`, and the event there through a subscription."""

    shard: int
    position: int
    event_id: str
    through: str
    """The last subscription of the event at `position` that is recorded; empty: all of its subscriptions."""


class GroupCursor(NamedTuple):
    """The cursor of a group: the slots with one place in the log."""

    group_id: int
    shards: tuple[ShardCursor, ...]
    """In a flush: the shards that move. In a takeover: all shards, in order."""


def rank(cursor: ShardCursor) -> tuple[int, bool, str]:
    """Return what orders the cursors of one shard: `through` is empty once the whole event is recorded."""
    return cursor.position, not cursor.through, cursor.through


def recorded_position(cursor: ShardCursor) -> ShardPosition:
    """Return the last position whose event is wholly in the ledger.

    It has the id of the event there, or of the next event if that one is partly in the ledger.
    """
    if cursor.through:
        return ShardPosition(cursor.shard, cursor.position - 1, following_id=cursor.event_id)
    return ShardPosition(cursor.shard, cursor.position, cursor.event_id)


@dataclass(frozen=True, slots=True)
class Flush:
    """What one transaction writes. Rows and cursors that it does not name stay unchanged."""

    opened: Sequence[OpenRow] = ()
    """Unfinished deliveries that have no row yet. A delivery that has a row keeps it unchanged."""
    updated: Sequence[OpenRow] = ()
    """Unfinished deliveries whose row changes: its attempts, its due time, and the sink at which it failed."""
    closed: Sequence[bytes] = ()
    """Ids of finished deliveries whose unfinished row must be deleted."""
    finished: Sequence[DoneRow] = ()
    """Finished deliveries. A delivery that is finished already keeps its state."""
    cursors: Sequence[GroupCursor] = ()
    """At most one for each group."""
    written_ms: int = 0
    """When the flush is written, by the clock by which rows are due (`due_clock`). It is kept if the flush has unfinished
    deliveries or lanes."""
    ranges: Sequence[RangeRow] = ()
    """Owed ranges that begin or move; each key at most once. A range that would go back fails the whole flush."""
    ranges_done: Sequence[RangeKey] = ()
    """Owed ranges that are over. They are deleted before `ranges` are written."""
    ended: Sequence[EndedRow] = ()
    """Ranges whose deliveries have ended without rows; neighbours become one row."""
    jobs: Sequence[JobRow] = ()
    """Jobs that begin or go on."""
    jobs_done: Sequence[JobKey] = ()
    """Jobs that the registry no longer knows."""
    lanes: Sequence[LaneRow] = ()
    """Lanes whose state changes."""
    lanes_done: Sequence[str] = ()
    """The ids of subscriptions whose lanes have nothing to keep any more."""
    set_aside: Sequence[SetAsideRow] = ()
    """Events that are not routed."""
    notices: Sequence[NoticeRow] = ()
    """Notices for the outbox; a notice whose id is in the outbox replaces that one."""
    due_now: Sequence[DueNow] = ()
    """Which rows are due earlier than they say. It holds for the rows as they are before this flush, and not for `opened` and `updated`."""
    copies: Sequence[Record] = ()
    """The events of rows that come to lie at or below what has been copied already."""
    joined: Sequence[int] = ()
    """The groups whose slots join the first group, after `cursors` have moved. The flush fails if the first group has not reached them."""

    def __bool__(self) -> bool:
        return bool(self.opened or self.updated or self.finished or self.cursors or self.joined or self.due_now or self.has_lanes)

    @property
    def has_lanes(self) -> bool:
        """Whether it writes anything besides deliveries and cursors."""
        return bool(
            self.ranges
            or self.ranges_done
            or self.ended
            or self.jobs
            or self.jobs_done
            or self.lanes
            or self.lanes_done
            or self.set_aside
            or self.notices
            or self.copies
        )


class DeliveryKey(NamedTuple):
    """What makes a delivery the same one."""

    event_id: str
    subscription_id: str
    job_id: str


class Takeover(NamedTuple):
    """What a worker takes over together with the lease."""

    groups: list[GroupCursor]
    """The cursors of the worker's groups, the first group first."""
    log_id: str
    """The identity of the log that the ledger has followed; empty for a new ledger."""
    clock_jumped_ms: int
    """How far the wall clock is known to have jumped since the ledger was created (forward: positive); due times leave jumps out."""
    written_ms: int
    """The `written_ms` of the last flush with unfinished deliveries or lanes; 0 before the first."""
    routing_note: RoutingNote | None = None
    """The last `note_routing`; None before the first."""
    slots: tuple[tuple[int, ...], ...] = (tuple(range(SLOTS)),)
    """The slots of each group, in the order of `groups` and in order."""


class WaitingCount(NamedTuple):
    """How many unfinished deliveries of a subscription have rows."""

    subscription_id: str
    never_attempted: int
    attempted: int
    failed_sink: int
    """The fingerprint of the sink at which the attempted ones failed last; 0: at several sinks, or there are no attempted ones."""


class TrimReport(NamedTuple):
    """What one call of `trim` has dropped."""

    deliveries: int
    """Finished deliveries."""
    copies: int
    """Copies of events that no unfinished delivery needs."""
    used_bytes: int
    """How much space the ledger takes afterwards."""


class Listing(NamedTuple):
    """Which deliveries a page lists; an empty text or None matches everything."""

    before_id: bytes | None
    """List only deliveries with lower ids, which are those of older events: where the page before ended."""
    limit: int
    scope: Scope
    state: State | None
    subscription_id: str
    event_id: str
    event_type: str
    start_ms: int | None
    """The earliest acceptance of the event, in ms since 1970."""
    end_ms: int | None
    """Events accepted from then on are left out."""


class Page(NamedTuple):
    """Some of the deliveries that a listing matches, the newest event first."""

    rows: list[OpenRow | DoneRow]
    before_id: bytes | None
    """Where the next page begins; None if this page is the last."""


class Ledger(Protocol):
    """The durable state of every delivery.

    The methods that write raise `LeaseLostError` if the worker has no lease or another worker has taken it, and `LedgerFullError` if the
    disk is full. Nothing was written then, and after `LedgerFullError` the same write may be tried again. `LedgerInvariantError` means that
    the flush would lose or repeat events: nothing was written, and the worker must stop. Any other error means that the store has failed,
    and that the worker must stop.
    """

    async def take_lease(self, owner: str) -> Takeover:
        """Take over the ledger's slots under a new epoch. From then on no other worker can write, not even one with the same name."""
        ...

    async def flush(self, flush: Flush) -> Mapping[DeliveryKey, bytes]:
        """Write a flush durably.

        Return the new ids of deliveries whose own ids belong to other deliveries of the ledger: nearly always none. These rows have the new
        ids, and whatever names them later must use those.
        """
        ...

    async def set_log_id(self, log_id: str) -> None:
        """Store the identity of the log that the ledger follows."""
        ...

    async def set_clock_jump(self, jumped_ms: int) -> None:
        """Store how far the wall clock is known to have jumped since the ledger was created, in ms."""
        ...

    async def note_routing(self, note: RoutingNote) -> None:
        """Store a note of the routing, instead of the one before."""
        ...

    # Unfinished deliveries

    async def lanes(self) -> list[str]:
        """Return the ids of all subscriptions with unfinished deliveries."""
        ...

    async def due_rows(self, subscription_id: str, due_by_ms: int | None, limit: int) -> list[OpenRow]:
        """Return up to `limit` of a lane's deliveries due by a time (None: all): those never tried by position, then by due time."""
        ...

    async def next_due_ms(self, subscription_id: str, after_ms: int) -> int | None:
        """Return the earliest due time of a lane's deliveries after `after_ms`; None if there is no such delivery."""
        ...

    async def expired_rows(self, accepted_before_ms: int, limit: int) -> list[OpenRow]:
        """Return up to `limit` unfinished deliveries of events accepted before a time (ms since 1970), the oldest first."""
        ...

    async def waiting_counts(self) -> list[WaitingCount]:
        """Return how many rows each subscription with unfinished deliveries has."""
        ...

    async def ordered_rows(self, subscription_id: str) -> list[WaitingRow]:
        """Return all of a lane's unfinished deliveries, in order of position: what an ordered lane must know of them."""
        ...

    async def open_rows(self, ids: Sequence[bytes]) -> list[OpenRow]:
        """Return the unfinished deliveries with these ids, at most a few hundred, in order of position."""
        ...

    # Events without rows

    async def ranges(self) -> list[RangeRow]:
        """Return all owed ranges, in order of their keys."""
        ...

    async def lowest_owed(self) -> Positions | None:
        """Return for each append shard the lowest `at` of all owed ranges; None if nothing is owed. The log must keep what is above it."""
        ...

    async def jobs(self) -> list[JobRow]:
        """Return all jobs, in order of their keys."""
        ...

    async def ended(self, subscription_id: str) -> list[EndedRow]:
        """Return a subscription's ended ranges, by job and place."""
        ...

    async def set_aside(self, limit: int) -> list[SetAsideRow]:
        """Return up to `limit` events that were set aside, the latest first."""
        ...

    # Lanes and notices

    async def lane_rows(self) -> list[LaneRow]:
        """Return what lanes have kept, in order of their subscriptions."""
        ...

    async def outbox_page(self, limit: int) -> list[NoticeRow]:
        """Return up to `limit` of the oldest notices of the outbox."""
        ...

    async def outbox_counts(self) -> dict[str, int]:
        """Return how many notices of each consumer are in the outbox."""
        ...

    async def forget_notices(self, ids: Sequence[str]) -> None:
        """Delete published notices from the outbox."""
        ...

    # Progress, and copies of events that the log is about to drop

    async def recorded_place(self) -> list[ShardPosition]:
        """Return the place up to which everything is in the ledger: `recorded_position` of each shard of the first group, in order."""
        ...

    async def first_uncopied(self, copied_through: Sequence[ShardPosition]) -> list[ShardPosition]:
        """Return for each shard the lowest position whose event an unfinished delivery needs and the ledger has no copy of.

        Only positions above `copied_through` count; a shard without such a position is left out.
        """
        ...

    async def uncopied(self, shard: int, after: int, through: int, limit: int) -> list[ShardPosition]:
        """Return up to `limit` positions above `after`, up to `through`, that unfinished deliveries need and the ledger has no copy of."""
        ...

    async def keep_copies(self, records: Sequence[Record]) -> None:
        """Store copies of events that the log is about to drop."""
        ...

    async def copies(self, positions: Sequence[ShardPosition]) -> list[Record]:
        """Return the ledger's copies of the events at `positions`, in their order; a position without a copy is left out."""
        ...

    # Retention

    async def trim(self, *, before_ms: int | None, bytes_max: int) -> TrimReport:
        """Drop what is kept no longer, in steps so short that no flush waits for long.

        These are the finished deliveries of the days before the day of `before_ms` (in ms since 1970; None: of no day), the oldest finished
        deliveries while the ledger takes more than `bytes_max`, and some of the copies that no unfinished delivery needs. Ended ranges and
        events set aside from before `before_ms` go too. Free space goes back to the file system.
        """
        ...

    # Repair

    async def count_lost(self, held_through: Mapping[int, int]) -> int:
        """Return how many unfinished deliveries need an event above these positions, by shard, that the ledger has no copy of."""
        ...

    async def repair(self, log_id: str, groups: Sequence[GroupCursor], held_through: Mapping[int, int]) -> None:
        """Follow another log, or another state of the log, from these cursors on, in one transaction. Other groups join the first.

        `held_through` has for each shard that moves the last position up to which the log holds the events of the ledger's rows. Rows and
        copies above it give up their positions, because other events have or will have them. Owed and ended ranges shrink to what the log
        holds, and no owed range goes beyond the cursor of its slot. What the caller knows of ranges is out of date then.
        """
        ...

    # Listings; callers of different scopes take turns

    async def find(self, scope: Scope, delivery_id: bytes) -> OpenRow | DoneRow | None:
        """Return one delivery of the scope, unfinished or finished, or None. Raises `Failure` OVERLOADED if too many listings wait."""
        ...

    async def page(self, listing: Listing) -> Page:
        """Return a page of deliveries, the newest event first. Raises `Failure` OVERLOADED if too many listings wait.

        A call examines a bounded number of rows for a bounded time. So a page may have fewer rows than `limit`, even no row, although more
        pages follow.
        """
        ...

    async def ended_at(self, scope: Scope, shard: int, position: int, limit: int) -> list[EndedRow]:
        """Return up to `limit` ended ranges of the scope in which a position lies, in order of their keys.

        A call examines a bounded number of ranges. Raises `Failure` OVERLOADED if too many listings wait.
        """
        ...

    async def ended_totals(self, scope: Scope, subscription_id: str) -> dict[State, int]:
        """Return about how many deliveries of the scope and a subscription (empty: of all) have ended without rows, by state.

        A call examines a bounded number of ranges. Raises `Failure` OVERLOADED if too many listings wait.
        """
        ...
