"""Lane modes: when routing passes a lane by, and when the lane joins routing again.

log_follower → [lane_modes: owed_ranges] → router; recorder → [lane_modes] → dispatcher

Law 1: a lane leaves the routing index only after its range has begun, and joins only between two events. The range need not be in the
ledger: the flush that passes its first event writes it, so no later event is recorded without it.
Law 2: the routing index changes once a second, and when many lanes go behind together, so that what an event costs does not depend on how
many lanes are behind.
Law 3: a lane that is behind is read only up to the position that is recorded.
"""

import asyncio
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Never

from services.delivery.dispatch.dispatcher import Dispatcher
from services.delivery.dispatch.fair_rounds import Work
from services.delivery.dispatch.lane import Lane
from services.delivery.dispatch.owed_ranges import HANDED_MAX, about, close, is_behind, is_read
from services.delivery.ledger.protocol import ShardCursor, recorded_position
from services.delivery.ledger.rows import RangeRow
from services.delivery.model import OwedRange
from services.delivery.subscriptions.replica import Replica
from services.delivery.worker.expiry_warnings import Waiting
from services.delivery.worker.past_starts import PastStarts
from services.delivery.worker.unflushed_deliveries import UnflushedDeliveries

_EVERY_S = 1.0
# Until they leave the index, routing looks at each of them for every event of a burst.
_MANY = 50
# How many lanes that are nearly live read on after one flush: each reads a page for the few events of a flush.
_READ_ON_MAX = 20


class LaneModes:
    """The modes of all lanes of a worker."""

    def __init__(self, dispatcher: Dispatcher, replica: Replica, unflushed: UnflushedDeliveries) -> None:
        self._dispatcher = dispatcher
        self._lanes = dispatcher.lanes
        self._replica = replica
        self._unflushed = unflushed
        self.starts = PastStarts(dispatcher, replica, unflushed)
        """The subscriptions that begin with events from before their creation."""
        unflushed.awaits_progress = self.awaits_progress
        self.floors = unflushed.floors
        """The slots that are recorded further than the main place."""
        self.recorded_through = 0
        """The position up to which everything that is routed is in the ledger."""
        self.record_first_through = 0
        """The last position of the log when this worker took it over: events up to there may have been sent before a crash."""
        self.many = _MANY
        """If so many lanes are passed by, they leave the routing index before the next event, and not only once a second."""
        self.follows_log = False
        """Whether the log is known to be the one that the ledger has followed, so that ranges may be read from it."""
        self.is_due = False
        """Whether routing must call `step` before the next event."""
        self._joins_due = False
        self._passed_by = dispatcher.backlog.passed_by
        self._caught_up: dict[Lane, None] = {}
        self._joining: dict[Lane, None] = {}
        self._nearly_live: dict[Lane, None] = {}
        """The lanes that owed too much at the latest step to join. They read on after each flush, so that they owe less at the next."""

    def resume_at(self, cursor: ShardCursor) -> None:
        """Note how far everything is recorded, when routing begins or after a repair."""
        self.recorded_through = recorded_position(cursor).position
        self._unflushed.resume_at(cursor.position, cursor.through)

    def take_up(self, rows: Iterable[RangeRow]) -> None:
        """Take up the ranges that the ledger holds; those of subscriptions that are deleted or off are cancelled."""
        starting = set[str]()
        for row in rows:
            at, until = row.at[0], None if row.until is None else row.until[0]
            owed = OwedRange(row.subscription_id, row.seq, row.job_id, at, until, row.opened_ms, read_through=at)
            owed.consumer_id, owed.begun, owed.written, owed.record_first = row.consumer_id, True, (at, until), HANDED_MAX
            if row.subscription_id not in starting and self.starts.owes(owed):
                owed.is_start = True
                starting.add(row.subscription_id)
            if not self._replica.wanted(row.subscription_id):
                self._unflushed.cancel_range(owed)
                continue
            lane = self._lanes.lane(row.subscription_id)
            lane.ranges.append(owed)
            lane.work = Work.CATCH_UP
            if until is None:
                self._replica.router.pass_by(row.subscription_id)
            self._dispatcher.wake(lane)
        self.starts.taken_up(starting, self.recorded_through)

    def see(self, subscription_id: str) -> None:
        """Let a subscription that is new or changed start in the past, if it wants to and has not done so."""
        self.starts.see(subscription_id, self._unflushed.routed())

    def write_handed(self) -> None:
        """Let the next flush write everything that is handed out."""
        for lane in self._lanes:
            for owed in lane.ranges:
                if owed.begun:
                    owed.overtaken = -1
                    self._unflushed.add_range(owed)

    def reload(self, rows: Iterable[RangeRow], cursor: ShardCursor) -> None:
        """Take up the ranges anew, after a repair has changed their places; all that was handed out is written."""
        for lane in self._lanes:
            if lane.order is not None:
                lane.order.forget_rows()
                lane.row_waits(0)
            if lane.ranges:
                lane.generation += 1
                for owed in list(lane.ranges):
                    self._drop(lane, owed)
                self._replica.router.return_to(lane.subscription_id)
        self.resume_at(cursor)
        self.take_up(rows)
        self.starts.find_again(self.recorded_through)

    def cancel(self, subscription_id: str) -> None:
        """End the ranges of a subscription that is deleted or off."""
        self._replica.router.return_to(subscription_id)
        self.starts.cancel(subscription_id, self.recorded_through)
        lane = self._lanes.find(subscription_id)
        if lane is not None:
            for owed in list(lane.ranges):
                self._unflushed.cancel_range(owed)
                self._drop(lane, owed)

    def owes(self) -> bool:
        """Return whether any lane owes events."""
        return any(lane.ranges for lane in self._lanes)

    def waiting(self) -> Iterator[Waiting]:
        """Yield each subscription whose lane owes events, and the position after which they begin."""
        for lane in self._lanes:
            subscription = self._replica.get(lane.subscription_id)
            if subscription is not None and lane.ranges and (at := lane.ranges[0].at) is not None:
                yield Waiting(subscription, at)

    def overtake(self, position: int) -> int:
        """End what lanes still owe of the events up to a position, because the log drops them; return how many lanes owe some."""
        overtaken = 0
        for lane in self._lanes:
            for owed in lane.ranges:
                if owed.begun and owed.at is not None and owed.at < position:
                    lane.generation += 1
                    owed.overtaken = position
                    self._unflushed.add_range(owed)
                    overtaken += 1
        return overtaken

    def recorded_of(self, subscription_id: str) -> int:
        """Return the position up to which everything of a subscription is in the ledger."""
        return self.floors.passed(subscription_id, self.recorded_through)

    def through(self, owed: OwedRange) -> int:
        """Return the position up to which a range may be read now."""
        return self.recorded_through if owed.until is None else min(owed.until, self.recorded_through)

    def wait(self, lane: Lane, owed: OwedRange) -> None:
        """Note that a range is read as far as it may be: the lane joins soon, or more is read once more is recorded."""
        owed.is_waiting = True
        (self._caught_up if owed.until is None else self._joining)[lane] = None
        self._want_progress()

    def awaits_progress(self) -> bool:
        """Return whether a lane or a start goes on once more is recorded."""
        return bool(self._nearly_live or self._joining or self.starts.awaits_progress)

    def _want_progress(self) -> None:
        if self.floors.slots and self.awaits_progress():
            self._unflushed.flush_wanted.set()

    def flushed(self, recorded: int, ranges: Iterable[tuple[OwedRange, tuple[int, int | None] | None]]) -> None:
        """Note what a flush has written: up to which position, and the rows of these ranges (None: deleted)."""
        self.recorded_through = recorded
        for owed, written in ranges:
            first = owed.written is None
            owed.written = written
            if owed.is_start and (first or written is None):
                self.starts.flushed(owed)
            lane = self._lanes.find(owed.subscription_id)
            if lane is None or owed not in lane.ranges:
                continue
            if written is None:
                self._drop(lane, owed)
                self._dispatcher.backlog.join_queues(lane)
                self._dispatcher.forget_if_idle(lane)
            elif first and owed.until is None:
                owed.is_waiting = False
            self._dispatcher.wake(lane)
        self.starts.recorded(recorded)
        for lane in list(itertools.islice(self._nearly_live, _READ_ON_MAX)):
            # The others come first the next time.
            del self._nearly_live[lane]
            self._nearly_live[lane] = None
            self._read_on(lane)
        if self._joining:
            joining, self._joining = self._joining, {}
            for lane in joining:
                self._read_on(lane)

    @staticmethod
    def _drop(lane: Lane, owed: OwedRange) -> None:
        lane.ranges.remove(owed)
        lane.consumer.handed -= len(owed.handed)
        if not lane.ranges:
            lane.work = Work.FRESH

    def _read_on(self, lane: Lane) -> None:
        if lane in self._lanes and lane.ranges and not is_read(owed := lane.ranges[0]):
            if owed.read_through < self.through(owed):
                owed.is_waiting = False
                self._dispatcher.wake(lane)
            elif owed.until is not None:
                self._joining[lane] = None

    def step(self, routed: int) -> None:
        """Change the routing index, between two events; everything up to the position `routed` is wholly routed."""
        self.is_due = False
        self.leave_index()
        if not self._joins_due:
            return
        self._joins_due = False
        lanes, self._caught_up, self._nearly_live = self._caught_up | self._nearly_live, {}, {}
        for lane in lanes:
            if lane in self._lanes and is_behind(lane.ranges):
                self._join(lane, routed)

    def leave_index(self) -> None:
        """Take out of the routing index the lanes whose ranges have begun."""
        for owed in self._passed_by:
            lane = self._lanes.find(owed.subscription_id)
            if lane is not None and owed in lane.ranges and owed.until is None:
                self._replica.router.pass_by(owed.subscription_id)
        self._passed_by.clear()

    def _join(self, lane: Lane, routed: int) -> None:
        """Let a lane join if little is left of its only range; else let it read on."""
        owed = lane.ranges[-1]
        owed.is_waiting = False
        if len(lane.ranges) > 1 or not self._lanes.has_caught_up(lane):
            self._dispatcher.wake(lane)  # it comes here again after it has read on
            return
        if owed.at is None:
            self._drop(lane, owed)
            self._dispatcher.wake(lane)
            self._dispatcher.forget_if_idle(lane)
            return
        if self.floors.of_slot:
            # The worker before this one has passed the lane by up to there.
            routed = self.floors.passed(lane.subscription_id, routed)
        if len(lane.queue) + about(owed, owed.read_through, routed) <= self._lanes.joins_below:
            close(owed, max(routed, owed.read_through))
            self._replica.router.return_to(lane.subscription_id)
            self._unflushed.add_range(owed)
        else:
            self._nearly_live[lane] = None
            self._want_progress()
        self._dispatcher.wake(lane)

    async def run(self, between_events: Callable[[], int | None]) -> Never:
        """Take a step every second. `between_events` returns the position that is wholly routed; None while an event is being routed."""
        while True:
            await asyncio.sleep(_EVERY_S)
            self._joins_due = True
            routed = between_events()
            if routed is None:
                self.is_due = True
            else:
                self.step(routed)
