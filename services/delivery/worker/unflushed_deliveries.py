"""Unflushed deliveries: the chunks and settled deliveries that wait for a flush, and how urgent the flush is.

log_follower, dispatcher → [unflushed_deliveries] → recorder

Law: the deliveries that are routed and not recorded are bounded. Routing waits for room; a settled delivery never waits.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable

from services.delivery.dispatch.lane_table import UNRECORDED_SENT_MAX, LaneTable
from services.delivery.dispatch.owed_ranges import last_passed
from services.delivery.ledger.rows import DueNow, JobKey, JobRow
from services.delivery.model import Chunk, Delivery, OwedRange
from services.delivery.notices.outbox import Outbox
from services.delivery.worker.backpressure import MEASURE_S, Backpressure
from services.delivery.worker.slot_floors import SlotFloors
from services.runtime.clock import Clock

# How often one of several workers writes its progress while no event concerns it.
_PROGRESS_EVERY_S = 1.0
_URGENT_SENT, _URGENT_BYTES = UNRECORDED_SENT_MAX // 8, 1024 * 1024


class UnflushedDeliveries:
    """Filled by routing and dispatch, emptied by the recorder."""

    def __init__(self, lanes: LaneTable, backpressure: Backpressure, clock: Clock) -> None:
        """`backpressure` bounds what is routed and not recorded."""
        self._lanes = lanes
        self._backpressure = backpressure
        self._clock = clock
        lanes.routed_max = backpressure.limit
        self._routed = 0
        self._room_made = asyncio.Event()
        self._last = 0, ""
        self.floors = SlotFloors()
        """The slots that are recorded further than what is routed."""
        self.awaits_progress: Callable[[], bool] = lambda: False
        """Returns whether anything waits until more is recorded."""
        self._progress_timer: asyncio.TimerHandle | None = None
        self.chunks: deque[Chunk] = deque()  # bounded: by `Backpressure`
        """The chunks whose flush has not begun, in the order of routing."""
        self.changed: dict[Delivery, None] = {}
        """The settled deliveries whose chunk is flushed already."""
        self.ranges: dict[OwedRange, None] = {}
        """The owed ranges of which the next flush may write something."""
        self.jobs: dict[JobKey, JobRow | None] = {}
        """The jobs that the next flush writes; None: deletes."""
        self.due_now: dict[str, DueNow] = {}
        """The subscriptions whose rows the next flush brings forward."""
        self.flush_wanted = asyncio.Event()
        self.outbox = Outbox(self.flush_wanted.set)
        """The notices that the next flush writes."""
        self.urgent = asyncio.Event()
        """Set once a flush should not linger any longer."""

    def add_chunk(self, chunk: Chunk) -> None:
        """Take a chunk whose deliveries are held by the dispatcher or spilled, or that has none because its lanes are behind."""
        self._last = chunk.position, chunk.through
        if not chunk.deliveries and not chunk.begins and self._extend_last(chunk):
            return
        self.chunks.append(chunk)
        self._routed += max(1, len(chunk.deliveries))
        if self.is_quiet():
            if self._progress_timer is None:
                self._progress_timer = asyncio.get_running_loop().call_later(_PROGRESS_EVERY_S, self._write_progress)
        else:
            self.flush_wanted.set()

    def is_quiet(self) -> bool:
        """Return whether only progress waits, which can wait longer: with several workers, most events concern only some of them."""
        if not self.floors.slots or len(self.chunks) != 1 or self.ranges or self.awaits_progress():
            return False
        [chunk] = self.chunks
        return not (chunk.deliveries or chunk.begins or chunk.cancels or chunk.record_first)

    def _write_progress(self) -> None:
        self._progress_timer = None
        self.flush_wanted.set()

    def _extend_last(self, chunk: Chunk) -> bool:
        """Let the last chunk pass an event for which there is nothing to write; return whether that is possible.

        Otherwise a burst of events that match nothing would fill the bound, and routing would wait for a flush.
        """
        last = self.chunks[-1] if self.chunks else None
        if last is None or last.deliveries or last.cancels or last.shard != chunk.shard:
            return False
        last.position, last.event_id, last.through = chunk.position, chunk.event_id, chunk.through
        return True

    def add_settled(self, delivery: Delivery) -> None:
        """Take a delivery that is settled: retrying, withdrawn, spilled, ended, or let go before its chunk is flushed."""
        if delivery.chunk is not None:
            delivery.chunk.unsettled -= 1
            self._backpressure.note_settled()
        elif delivery.owed is not None:
            self.ranges[delivery.owed] = None
        else:
            self.changed[delivery] = None
        self.flush_wanted.set()
        if self.is_urgent():
            self.urgent.set()

    def add_due_now(self, subscription_id: str, due_ms: int, present_sink: int = 0) -> None:
        """Bring a subscription's rows forward to `due_ms` with the next flush; see `DueNow`."""
        self.due_now[subscription_id] = DueNow(subscription_id, due_ms, present_sink)
        self.flush_wanted.set()

    def take_due_now(self) -> list[DueNow]:
        """Return the subscriptions that `add_due_now` has taken, for the next flush."""
        due_now, self.due_now = self.due_now, {}
        return list(due_now.values())

    def add_range(self, owed: OwedRange) -> None:
        """Take a range whose row has to change."""
        self.ranges[owed] = None
        self.flush_wanted.set()

    def add_job(self, key: JobKey, row: JobRow | None) -> None:
        """Take a job whose row has to change, or to be deleted (None)."""
        self.jobs[key] = row
        self.flush_wanted.set()

    def take_jobs(self) -> tuple[list[JobRow], list[JobKey]]:
        """Return and forget the rows of the jobs to write, and the keys of those to delete."""
        rows = [row for row in self.jobs.values() if row is not None]
        gone = [key for key, row in self.jobs.items() if row is None]
        self.jobs.clear()
        return rows, gone

    def routed(self) -> int:
        """Return the position up to which everything is routed."""
        position, through = self._last
        return position - 1 if through else position

    def resume_at(self, position: int, through: str) -> None:
        """Note which event was routed last, and through which subscription ("": to all), when routing begins or after a repair."""
        self._last = position, through

    def cancel_range(self, owed: OwedRange) -> None:
        """End a range, up to what is routed so far, with the flush that records it."""
        if owed.at is None:
            return
        if self.chunks:
            last = self.chunks[-1]
            last.cancels = [*(last.cancels or ()), owed]
            if self.floors.slots:
                self.flush_wanted.set()
        else:
            # What was routed last is recorded, or its flush is under way.
            owed.cancelled_through = self.floors.passed(owed.subscription_id, last_passed(*self._last, owed.subscription_id))
            self.add_range(owed)

    def is_urgent(self) -> bool:
        """Return whether sending might soon have to wait for a flush, or much memory is held until it."""
        return self._lanes.unrecorded_ended >= _URGENT_SENT or self._lanes.held_bytes >= _URGENT_BYTES

    @property
    def is_full(self) -> bool:
        """Whether routing must wait for `wait_for_room`."""
        return self._routed >= self._backpressure.limit

    async def wait_for_room(self) -> None:
        """Wait until more may be routed."""
        self._backpressure.begin_measuring(self._clock.monotonic(), self._clock.busy())
        while self.is_full:
            self._room_made.clear()
            self.flush_wanted.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(MEASURE_S):
                    await self._room_made.wait()
            self._backpressure.adjust(self._clock.monotonic(), self._clock.busy())
            self._lanes.routed_max = self._backpressure.limit

    def note_flushed(self, chunks: list[Chunk]) -> None:
        """Note that a flush has written these chunks."""
        for chunk in chunks:
            self._routed -= max(1, len(chunk.deliveries))

    def make_room(self) -> None:
        """Let routing look for room again, because a flush has ended."""
        self._room_made.set()
