"""Recorder: gathers routed deliveries and their states, and flushes them into the ledger.

unflushed_deliveries → [recorder] → ledger; then dispatcher

Law 1: one flush holds the deliveries of a chunk, in the states that they have by then, and the cursor that passes the chunk.
Law 2: flushes run one at a time. After the ledger refuses a flush, nothing is sent until that flush succeeds.
"""

import asyncio
import contextlib
import functools
import itertools
from collections.abc import Callable, Mapping

from prometheus_client import Counter

from services.delivery.dispatch import lifecycle
from services.delivery.dispatch.dispatcher import Dispatcher
from services.delivery.dispatch.lane_table import UNRECORDED_SENT_MAX
from services.delivery.dispatch.owed_ranges import about, is_done, last_passed, overtake, take_written
from services.delivery.errors import LedgerFullError
from services.delivery.ledger.protocol import DeliveryKey, Flush, Ledger
from services.delivery.ledger.rows import (
    EndedRow,
    RangeKey,
    RangeRow,
    done_row,
    open_row,
)
from services.delivery.model import Chunk, Delivery, OwedRange, Phase, State
from services.delivery.notices import notice
from services.delivery.worker.flush_batch import FlushBatch
from services.delivery.worker.lane_modes import LaneModes
from services.delivery.worker.taken_ids import give_new_ids
from services.delivery.worker.unflushed_deliveries import UnflushedDeliveries
from services.runtime import failpoints
from services.runtime.clock import Clock, unix_ms
from services.runtime.logs import logger

# Wait 40 ms so that a transaction is worth its fsync; an attempt that starts at once does not wait for it. The wait ends early, but not
# before 15 ms, if the unflushed deliveries are urgent.
_LINGER_MIN_S, _LINGER_MAX_S = 0.015, 0.04
# A delivery is written once, in its final state, if its attempt begins within `_WAIT_FOR_TURN_S` and ends within `_WAIT_FOR_END_S`.
# The former is longer: under load deliveries wait their turn, and writing each of them twice would make them wait longer.
_WAIT_FOR_END_S = 0.1
_WAIT_FOR_TURN_S = 0.6
_ROWS_MAX = 1000
# To look up an enum's member by its class takes 0.14 µs, and these are compared with for every delivery.
_HELD, _QUEUED, _IN_FLIGHT, _ENDED, _RELEASED = Phase.HELD, Phase.QUEUED, Phase.IN_FLIGHT, Phase.ENDED, Phase.RELEASED
_EXHAUSTED = State.EXHAUSTED
# If the deliveries of a working lane wait for long, so many of them get rows. With more, the lane goes behind.
_WAITING_ROWS = 20
# With all places for attempts in use, sending then still goes on for a while.
_UNRECORDED_ENDED_MAX = UNRECORDED_SENT_MAX * 2 // 5
_RETRY_S = 1.0

_rows_written = Counter("hooktide_ledger_rows_total", "Rows added to the ledger, by kind: open or finished.", ["kind"])
_rows_opened, _rows_finished = _rows_written.labels("open"), _rows_written.labels("finished")


class Recorder:
    """Flushes for one worker."""

    def __init__(
        self,
        ledger: Ledger,
        unflushed: UnflushedDeliveries,
        dispatcher: Dispatcher,
        lane_modes: LaneModes,
        clock: Clock,
        *,
        wanted: Callable[[str], bool],
    ) -> None:
        """`wanted` returns whether events may still be delivered to a subscription."""
        self._ledger = ledger
        self._unflushed = unflushed
        self._dispatcher = dispatcher
        self._lane_modes = lane_modes
        self._clock = clock
        self._wanted = wanted
        self._chunks = unflushed.chunks
        self._changed = unflushed.changed
        self._ranges = unflushed.ranges
        self._outbox = unflushed.outbox
        self._floors = unflushed.floors
        self._flush_wanted = unflushed.flush_wanted
        self._flush_ended = asyncio.Event()
        self._is_awaited = asyncio.Event()
        self._flushes_begun = 0
        self._flushes_done = 0
        self._closing = False

    @property
    def _is_empty(self) -> bool:
        unflushed = self._unflushed
        return not (self._chunks or self._changed or self._ranges or self._outbox or unflushed.jobs or unflushed.due_now)

    async def wait_until_empty(self) -> None:
        """Wait until nothing is left to flush."""
        while not self._is_empty or self._flushes_done < self._flushes_begun:
            await self._wait_for_flush_end()

    async def wait_for_flush(self) -> None:
        """Wait for the end of a flush that begins after this call; a flush under way has ended by then too."""
        number = self._flushes_begun + 1
        while self._flushes_done < number:
            await self._wait_for_flush_end()

    async def wait_until_recorded(self) -> None:
        """Wait until everything that is routed is written. The caller must keep more from being routed until then."""
        while self._chunks:
            self._is_awaited.set()
            await self._wait_for_flush_end()
        number = self._flushes_begun
        while self._flushes_done < number:
            await self._wait_for_flush_end()

    async def _wait_for_flush_end(self) -> None:
        self._flush_ended.clear()
        self._flush_wanted.set()
        await self._flush_ended.wait()

    def close(self) -> None:
        """From now on flush without waiting for attempts to end; `run` ends once nothing is left."""
        self._closing = True
        self._flush_wanted.set()

    async def run(self) -> None:
        """Flush until closed. Raises the errors after which no flush can succeed, such as `LeaseLostError`."""
        while not (self._closing and self._is_empty):
            await self._flush_wanted.wait()
            if not self._closing:
                await self._linger()
            self._flush_wanted.clear()
            self._is_awaited.clear()
            self._flushes_begun += 1
            batch = self._collect()
            if flush := batch.flush():
                failpoints.reached("delivery.before_flush")
                renamed = await self._write_flush(flush)
                failpoints.reached("delivery.after_flush")
                if renamed:
                    give_new_ids(batch.written, renamed)
                self._after_flush(batch)
            self._flushes_done += 1
            self._flush_ended.set()
            self._unflushed.make_room()
            if self._changed:
                self._flush_wanted.set()
            elif (self._chunks or self._ranges) and not self._unflushed.is_quiet():
                asyncio.get_running_loop().call_later(_WAIT_FOR_END_S, self._flush_wanted.set)

    async def _linger(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LINGER_MIN_S):
                await self._is_awaited.wait()
                return
        ends_at = self._clock.monotonic() + _LINGER_MAX_S - _LINGER_MIN_S
        self._unflushed.urgent.clear()
        while not self._unflushed.is_urgent() and (left_s := ends_at - self._clock.monotonic()) > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await self._unflushed.urgent.wait()
            self._unflushed.urgent.clear()

    def _is_due(self, chunk: Chunk, now: float, batch: FlushBatch) -> bool:
        """Return whether a chunk is to be written as it stands; if not, its attempts may still end soon."""
        if chunk.unsettled == 0 or chunk.record_first or self._closing or chunk.routed_at <= now - _WAIT_FOR_TURN_S:
            return True
        # Many ends would remain unrecorded after this flush. Write this chunk, so that those behind it can be recorded in time.
        if self._dispatcher.lanes.unrecorded_ended - len(batch.settled) - len(self._changed) >= _UNRECORDED_ENDED_MAX:
            return True
        if chunk.routed_at <= now - _LINGER_MIN_S and self._dispatcher.lanes.waits_for_failing_sinks(chunk):
            return True
        sent_by = now - _WAIT_FOR_END_S
        if chunk.routed_at > sent_by:
            return False
        if self._dispatcher.lanes.is_stuck(chunk):
            return True
        return any(
            delivery.phase is _IN_FLIGHT and delivery.sent_at is not None and delivery.sent_at <= sent_by for delivery in chunk.deliveries
        )

    def _collect(self) -> FlushBatch:
        """Take what the next transaction writes."""
        batch, rows, now = FlushBatch(self._dispatcher.due.now_ms()), 0, self._clock.monotonic()
        while self._chunks and rows < _ROWS_MAX and self._is_due(self._chunks[0], now, batch):
            rows += self._collect_chunk(batch, self._chunks.popleft())
        if self._floors.of_slot and batch.chunks:
            batch.joined = self._floors.reached_at(batch.chunks[-1].position, batch.chunks[-1].through)
        if self._ranges:
            self._collect_ranges(batch, now)
        if self._unflushed.jobs:  # after the ranges, which may end some
            batch.jobs, batch.jobs_done = self._unflushed.take_jobs()
        # Up to as many rows again for changed deliveries, so that routing never keeps their states from being written.
        for delivery in list(itertools.islice(self._changed, _ROWS_MAX)):
            del self._changed[delivery]
            self._write(batch, delivery)
        if self._dispatcher.lanes.changed:
            batch.lanes, batch.lanes_done = self._dispatcher.lanes.take_changed()
        batch.due_now = self._unflushed.take_due_now()
        if self._outbox:
            batch.notices = self._outbox.take()
        return batch

    def _collect_chunk(self, batch: FlushBatch, chunk: Chunk) -> int:
        """Take a chunk; return the number of rows that it may write."""
        batch.chunks.append(chunk)
        if chunk.unsettled and not chunk.record_first:
            self._leave_to_log(chunk)
        for delivery in chunk.deliveries:
            self._write(batch, delivery)
            delivery.chunk = None
            if chunk.record_first and delivery.phase is _HELD:
                batch.to_queue.append(delivery)
        for owed in chunk.begins or ():
            owed.begun = True
            self._ranges[owed] = None
        for owed in chunk.cancels or ():
            passed = last_passed(chunk.position, chunk.through, owed.subscription_id)
            owed.cancelled_through = self._floors.passed(owed.subscription_id, passed)
            self._ranges[owed] = None
        return len(chunk.deliveries) + len(chunk.begins or ())

    def _recorded_by(self, batch: FlushBatch) -> int:
        """Return the position up to which everything is recorded once a batch is written."""
        if not batch.chunks:
            return self._lane_modes.recorded_through
        last = batch.chunks[-1]
        return last.position - 1 if last.through else last.position

    def _leave_to_log(self, chunk: Chunk) -> None:
        """Let lanes go behind whose deliveries have waited long for their turn, with many behind them: the log has their events."""
        lanes = self._dispatcher.lanes
        for delivery in chunk.deliveries:
            if delivery.phase is _QUEUED and not self._closing:
                lane = lanes.lane(delivery.subscription_id)
                if len(lane.queue) > _WAITING_ROWS and not lane.failures:
                    self._dispatcher.backlog.go_behind(lane)

    def _collect_ranges(self, batch: FlushBatch, now: float) -> None:
        """Take what has settled of the ranges, in the order of their positions, and what lies below it."""
        recorded = self._recorded_by(batch)
        sent_by = now - _WAIT_FOR_END_S
        ranges, later = list(self._ranges), []
        self._ranges.clear()
        for owed in ranges:
            if not owed.begun:
                continue  # its chunk brings it back
            handed = len(owed.handed)
            for delivery in take_written(owed, functools.partial(self._is_waiting, owed, sent_by)):
                self._write(batch, delivery)
                if delivery.phase is _HELD:
                    batch.to_queue.append(delivery)
            handed -= len(owed.handed)
            lane = self._dispatcher.lanes.find(owed.subscription_id)
            if lane is not None and owed in lane.ranges:
                lane.consumer.handed -= handed
            if any(each.phase in lifecycle.SETTLED for each in owed.handed):
                later.append(owed)
            self._write_range(batch, owed, recorded, handed)
        self._ranges.update(dict.fromkeys(later))

    def _is_waiting(self, owed: OwedRange, sent_by: float, delivery: Delivery) -> bool:
        """Return whether a range waits for a delivery before it moves: for its end, or because nothing above it has ended yet."""
        if delivery.phase in lifecycle.SETTLED or delivery.phase is _HELD or owed.cancelled_through is not None or owed.overtaken:
            return False
        if delivery.sent_at is not None and delivery.sent_at > sent_by and not self._closing:
            return True
        return not any(each.phase in lifecycle.SETTLED for each in owed.handed)

    def _write_range(self, batch: FlushBatch, owed: OwedRange, recorded: int, handed: int) -> None:
        assert owed.at is not None  # noqa: S101 - it has begun
        if owed.cancelled_through is not None:
            through = owed.cancelled_through if owed.until is None else min(owed.until, owed.cancelled_through)
            self._end_part(batch, owed, State.CANCELLED, through)
        elif owed.overtaken:
            through = min(owed.overtaken, recorded if owed.until is None else min(owed.until, recorded))
            self._end_part(batch, owed, State.EXHAUSTED, through)
            overtake(owed, through)
        if owed.cancelled_through is not None or is_done(owed):
            if owed.written is not None:
                batch.ranges_done.append(RangeKey(owed.subscription_id, owed.job_id, owed.seq))
            batch.ranges.append((owed, None))
        elif owed.written != (owed.at, owed.until):
            until = None if owed.until is None else (owed.until,)
            key = RangeKey(owed.subscription_id, owed.job_id, owed.seq)
            batch.range_rows.append(RangeRow(*key, (owed.at,), until, owed.opened_ms, owed.consumer_id))
            batch.ranges.append((owed, (owed.at, owed.until)))
        if owed.is_start and batch.ranges and batch.ranges[-1][0] is owed:
            self._lane_modes.starts.moved(owed, handed, is_over=batch.ranges[-1][1] is None)

    def _end_part(self, batch: FlushBatch, owed: OwedRange, state: State, through: int) -> None:
        """End what was not handed out of a range, up to a position, without rows."""
        assert owed.at is not None  # noqa: S101 - it has begun
        if through > owed.at:
            how_many = about(owed, owed.at, through)
            when_ms = unix_ms(self._clock)
            batch.ended.append(
                EndedRow(owed.subscription_id, owed.job_id, state, (owed.at,), (through,), how_many, when_ms, owed.consumer_id)
            )

    def _write(self, batch: FlushBatch, delivery: Delivery) -> None:
        if delivery.phase in lifecycle.WAITING and not self._wanted(delivery.subscription_id):
            self._dispatcher.cancel_waiting(delivery)
        if delivery.phase is _ENDED:
            batch.finished.append(done_row(delivery))
            if delivery.recorded:
                batch.closed.append(delivery.id)
            if delivery.state is _EXHAUSTED and (exhausted := notice.exhausted(delivery)) is not None:
                self._outbox.add(exhausted)
        elif delivery.phase is _RELEASED:
            return  # it is let go: a range of its lane has its event
        elif delivery.recorded:
            batch.updated.append(open_row(delivery))
        else:
            batch.opened.append(open_row(delivery))
        batch.written.append(delivery)
        if delivery.phase in lifecycle.SETTLED:
            batch.settled.append(delivery)

    async def _write_flush(self, flush: Flush) -> Mapping[DeliveryKey, bytes]:
        while True:
            try:
                renamed = await self._ledger.flush(flush)
            except LedgerFullError:
                if self._dispatcher.attempts.recordable:
                    logger().error("ledger.disk_full", effect="nothing is sent until the disk has free space")
                self._dispatcher.attempts.recordable = False
                await asyncio.sleep(_RETRY_S)
            else:
                break
        if not self._dispatcher.attempts.recordable:
            logger().info("ledger.resumed")
            self._dispatcher.attempts.recordable = True
        return renamed

    def _after_flush(self, batch: FlushBatch) -> None:
        dispatcher = self._dispatcher
        self._unflushed.note_flushed(batch.chunks)
        if batch.joined:
            self._floors.join(batch.joined)
        self._outbox.flushed()
        lifecycle.record(batch.written)
        _rows_opened.inc(len(batch.opened))
        _rows_finished.inc(len(batch.finished))
        self._lane_modes.flushed(self._recorded_by(batch), batch.ranges)
        for subscription_id, due_ms, present_sink in batch.due_now:
            if (lane := dispatcher.lanes.find(subscription_id)) is not None:
                lane.rows_due_at(due_ms, all_of_them=not present_sink)
                dispatcher.wake(lane)
        for delivery in batch.settled:
            dispatcher.release(delivery)
        for delivery in batch.to_queue:
            dispatcher.queue(delivery)
        dispatcher.pump()
