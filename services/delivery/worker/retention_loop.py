"""Retention loop: drops old data from log and ledger, and keeps everything that is still needed.

event log, ledger → [retention_loop] → event log, ledger

Deliveries do not pin the log: before the log drops an event that an unfinished delivery needs, the event is
copied once into the ledger.

Law 1: a position is reported as released only once its event is recorded, copied if an unfinished delivery needs it, and owed to no lane.
Law 2: events that wait in the log for lanes that are behind live as long as the log keeps them: then they end as exhausted.
Law 3: a wall clock that is far ahead for a while makes nothing old.
"""

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass

from prometheus_client import Gauge

from services.delivery.dispatch.dispatcher import Dispatcher
from services.delivery.errors import LedgerFullError
from services.delivery.ledger.protocol import Ledger
from services.delivery.worker.lane_modes import LaneModes
from services.delivery.worker.recorder import Recorder
from services.delivery.worker.waiting_rows import end_waiting, read_waiting
from services.eventlog.errors import EventLogError
from services.eventlog.protocol import EventLogReader
from services.eventlog.record import ShardPosition, SlotProgress
from services.runtime.clock import unix_ms
from services.runtime.logs import logger

_COPIES_FIRST = 20
_COPIES_MAX = 500
_COPY_BYTES = 2 * 1024 * 1024
_EXPIRED = 500
_NOWHERE = 1 << 62
_EXPIRY_REASON = "the delivery reached its expiry time"

_ledger_bytes = Gauge("hooktide_ledger_bytes", "Size of the ledger on disk, in bytes.")


@dataclass(frozen=True, slots=True)
class RetentionLimits:
    """How long data is kept, and how much."""

    retention_s: float
    """Of finished deliveries."""
    expiry_s: float
    """Of unfinished deliveries, from their event's acceptance; infinite as long as it is not known."""
    log_s: float
    """Of events in the log: what lanes owe of older events ends, because the log drops them; infinite until the log has told it."""
    bytes_max: int
    """The size of the ledger."""
    every_s: float
    """The pause between two passes."""


class RetentionLoop:
    """Keeps log and ledger within their bounds, for one worker."""

    def __init__(
        self,
        ledger: Ledger,
        log: EventLogReader,
        dispatcher: Dispatcher,
        recorder: Recorder,
        lane_modes: LaneModes,
        limits: Callable[[], RetentionLimits],
    ) -> None:
        """`limits` returns the limits that hold at the moment."""
        self._ledger = ledger
        self._log = log
        self._dispatcher = dispatcher
        self._recorder = recorder
        self._lane_modes = lane_modes
        self._limits = limits
        self.step_lock = asyncio.Lock()
        """Held during each step, and by a repair, which moves the cursors."""
        self._copied_through: dict[int, int] = {}
        """For each shard, the last position up to which all events are copied that unfinished deliveries need; 0 if it is not in here."""

    async def run(self) -> None:
        """Run all steps for ever, with a pause after each pass."""
        while True:
            # Expire first: by default deliveries expire when the log wants to drop their events, which then need no copies.
            for step in (self.expire, self.release_log, self.trim_ledger):
                try:
                    async with self.step_lock:
                        await step()
                except EventLogError as error:
                    logger().warning("retention.log_unreachable", reason=str(error))
                except LedgerFullError:
                    logger().warning("retention.postponed", reason="the disk is full")
            await asyncio.sleep(self._limits().every_s)

    def forget_copied(self) -> None:
        """Forget up to where events are copied, because their positions have changed."""
        self._copied_through.clear()

    def copy_from(self, position: int) -> None:
        """Look for missing copies above a position again, because rows of events above it may come."""
        for shard, copied in self._copied_through.items():
            self._copied_through[shard] = min(copied, position)

    async def release_log(self) -> None:
        """Report progress, copy the needed events among those that the log wants to drop, and report again."""
        expiring = await self._log.release(await self._progress())
        recorded = {each.shard: each.position for each in await self._ledger.recorded_place()}
        lowest = await self._lowest_owed()
        copied = 0
        for shard, position, *_ in expiring:
            through = min(position, recorded[shard], lowest)
            if through > self._copied_through.get(shard, 0):
                copied += await self._copy(shard, through)
        if copied:
            logger().info("retention.events_copied", events=copied)
        if any(each.position for each in expiring):
            await self._log.release(await self._progress())

    async def _progress(self) -> list[SlotProgress]:
        """Return for each group its slots, up to where everything is recorded, and up to where no event is needed."""
        floors, main_slots = list(self._lane_modes.floors), self._lane_modes.floors.main_slots
        # The order of these reads matters. A range that begins later does so above what is recorded now, and a row that is read from a
        # range later lies above the lowest `at` of now.
        recorded = await self._ledger.recorded_place()
        lowest = await self._lowest_owed()
        looked_at = [ShardPosition(each.shard, min(self._copied_through.get(each.shard, 0), each.position)) for each in recorded]
        needed = {each.shard: each.position for each in await self._ledger.first_uncopied(looked_at)}
        released = [
            ShardPosition(each.shard, min(each.position, needed.get(each.shard, each.position + 1) - 1, lowest)) for each in recorded
        ]
        # The log drops only what all slots have released, so it helps nobody if slots that stand further release more.
        return [SlotProgress(main_slots, recorded, released), *(SlotProgress(each.slots, [each.place], released) for each in floors)]

    async def _lowest_owed(self) -> int:
        """Return the position above which lanes still owe events; rows may come to lie above it later, so nothing above it is copied."""
        # In this order: a start leaves the former once it is in the latter.
        starts = self._lane_modes.starts.lowest()
        lowest = await self._ledger.lowest_owed()
        return min(_NOWHERE if starts is None else starts, _NOWHERE if lowest is None else lowest[0])

    async def _copy(self, shard: int, through: int) -> int:
        """Copy the events of a shard that unfinished deliveries need, up to a wholly recorded position; return how many."""
        copied = lost = size_bytes = 0
        after, limit = self._copied_through.get(shard, 0), _COPIES_FIRST
        while positions := await self._ledger.uncopied(shard, after, through, limit):
            records = await self._log.fetch(positions)
            await self._ledger.keep_copies(records)
            copied += len(records)
            lost += len(positions) - len(records)
            size_bytes += sum(len(record.event) for record in records)
            # Estimate the sizes of the next events from those before.
            limit = min(_COPIES_MAX, 1 + _COPY_BYTES * copied // max(1, size_bytes))
            after = positions[-1].position
        if lost:
            logger().error("retention.events_missing", events=lost)
        self._copied_through[shard] = through
        return copied

    async def expire(self) -> None:
        """Give up deliveries that are unfinished after their expiry, whatever held them back."""
        dispatcher, limits = self._dispatcher, self._limits()
        await self._expire_ranges(min(limits.expiry_s, limits.log_s))
        if math.isinf(limits.expiry_s):
            return
        before_ms = dispatcher.due.age_ms(0) - int(limits.expiry_s * 1000)
        while True:
            rows = await read_waiting(dispatcher.lanes, self._ledger.expired_rows(before_ms, _EXPIRED))
            await end_waiting(dispatcher.lanes, rows, lambda delivery: dispatcher.exhaust(delivery, _EXPIRY_REASON), self._recorder)
            if rows:
                logger().warning("deliveries.expired", count=len(rows))
            if len(rows) < _EXPIRED:
                return

    async def _expire_ranges(self, age_s: float) -> None:
        """Give up what lanes that are behind still owe of events of this age; the log may drop these events then."""
        if math.isinf(age_s) or not self._lane_modes.owes():
            return
        before_ms = self._dispatcher.due.age_ms(0) - int(age_s * 1000)
        before = f"evt_{max(0, before_ms):012x}{0:020x}"
        _, points = await self._log.resume_points([ShardPosition(0, 0, before)])
        overtaken = self._lane_modes.overtake(points[0].position.position)
        if overtaken:
            logger().warning("ranges.expired", ranges=overtaken, effect="what these lanes still owed of events that old is exhausted")
            await self._recorder.wait_for_flush()

    async def trim_ledger(self) -> None:
        """Drop finished deliveries past their retention or beyond the size limit, and give their space back."""
        wall, limits = self._dispatcher.due.wall, self._limits()
        before_ms = unix_ms(wall) - int(limits.retention_s * 1000) if wall.settled() else None
        trimmed = await self._ledger.trim(before_ms=before_ms, bytes_max=limits.bytes_max)
        if trimmed.deliveries:
            logger().info("ledger.trimmed", deliveries=trimmed.deliveries, copies=trimmed.copies)
        _ledger_bytes.set(trimmed.used_bytes)
