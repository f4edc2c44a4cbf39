"""Lane refill: reads waiting rows back into their lanes, and cancels the rows of subscriptions that are deleted or off.

ledger → [lane_refill] → lane → dispatcher
"""

import asyncio
from collections.abc import Iterable

from services.delivery.dispatch.dispatcher import Dispatcher
from services.delivery.dispatch.key_order import KeyOrder
from services.delivery.dispatch.lane import Lane
from services.delivery.dispatch.owed_ranges import handed_out_through
from services.delivery.ledger.protocol import Ledger, WaitingCount
from services.delivery.ledger.rows import OpenRow, delivery_of
from services.delivery.model import Event, State
from services.delivery.subscriptions.replica import Replica
from services.delivery.worker.recorder import Recorder
from services.delivery.worker.unflushed_deliveries import UnflushedDeliveries
from services.delivery.worker.waiting_rows import end_waiting, read_waiting
from services.eventlog.errors import EventLogError
from services.eventlog.protocol import EventReader
from services.eventlog.record import Record, ShardPosition
from services.runtime.logs import logger

_WORKERS = 4
_RETRY_S = 1.0
_CANCEL_ROWS = 500
_REFILL_BYTES_MAX = 2 * 1024 * 1024
_FETCH_FIRST = 20


class RefillRequests:
    """The lanes whose rows are to be read back, each at most once."""

    def __init__(self) -> None:
        self._lanes: asyncio.Queue[Lane] = asyncio.Queue()  # bounded: each lane is in it once

    def add(self, lane: Lane) -> None:
        """Request a refill of a lane, unless one is requested or under way already."""
        if not lane.refilling:
            lane.refilling = True
            self._lanes.put_nowait(lane)

    async def next(self) -> Lane:
        """Wait for a request; return its lane."""
        return await self._lanes.get()


class LaneRefill:
    """Reads rows back, for a few lanes at a time."""

    def __init__(
        self,
        ledger: Ledger,
        log: EventReader,
        replica: Replica,
        requests: RefillRequests,
        dispatcher: Dispatcher,
        unflushed: UnflushedDeliveries,
        recorder: Recorder,
    ) -> None:
        self._ledger = ledger
        self._log = log
        self._replica = replica
        self._requests = requests
        self._to_cancel: asyncio.Queue[str] = asyncio.Queue()  # bounded: each subscription is in it once
        self._queued_to_cancel: set[str] = set()
        self._dispatcher = dispatcher
        self._unflushed = unflushed
        self._recorder = recorder

    def cancel(self, subscription_id: str) -> None:
        """Cancel all deliveries that wait for a subscription: the queued ones now, the rows soon."""
        self._dispatcher.cancel(subscription_id)
        self._cancel_rows(subscription_id)

    def _cancel_rows(self, subscription_id: str) -> None:
        if subscription_id not in self._queued_to_cancel:
            self._queued_to_cancel.add(subscription_id)
            self._to_cancel.put_nowait(subscription_id)

    async def start(self) -> None:
        """Take up every lane that has unfinished rows; if its subscription is deleted or off, cancel the rows."""
        lanes = self._dispatcher.lanes
        counts = await self._ledger.waiting_counts()
        await self._forget_former_sinks(counts)
        for subscription_id, never_attempted, attempted, _ in counts:
            if self._replica.wanted(subscription_id):
                lane = lanes.lane(subscription_id)
                lane.rows_wait(never_attempted)
                lane.failed_rows = attempted
                self._dispatcher.resume(subscription_id)
            else:
                self._cancel_rows(subscription_id)
        lanes.rows_are_known = True
        for lane in lanes:
            if lane.order is not None and not lane.order.is_complete:
                self._dispatcher.wake(lane)

    async def _forget_former_sinks(self, counts: Iterable[WaitingCount]) -> None:
        """Let rows be due now if they have failed at a former sink. The sink may have changed while no worker ran."""
        failed_at = {count.subscription_id: count.failed_sink for count in counts if count.attempted}
        while moved := {each: sink for each in failed_at if (sink := self._present_sink(each)) not in {0, failed_at[each]}}:
            for subscription_id, sink in moved.items():
                self._unflushed.add_due_now(subscription_id, self._dispatcher.due.now_ms(), sink)
            await self._recorder.wait_for_flush()
            failed_at |= moved

    def _present_sink(self, subscription_id: str) -> int:
        subscription = self._replica.get(subscription_id)
        return 0 if subscription is None else subscription.settings.sink_fingerprint

    async def run(self) -> None:
        """Refill and cancel for ever."""
        async with asyncio.TaskGroup() as group:
            for _ in range(_WORKERS):
                group.create_task(self._refill_lanes())
            group.create_task(self._cancel_lanes())

    async def _refill_lanes(self) -> None:
        while True:
            lane = await self._requests.next()
            try:
                await (self._refill(lane) if lane.order is None else self._refill_ordered(lane, lane.order))
            except EventLogError as error:
                logger().warning("lane.refill_failed", subscription=lane.subscription_id, reason=str(error))
                lane.refilling = False
                self._dispatcher.wake_in(lane, _RETRY_S)

    async def _refill(self, lane: Lane) -> None:
        """Read back the rows that are due, as many as the lane has room for, except those of deliveries in memory."""
        dispatcher, subscription_id = self._dispatcher, lane.subscription_id
        now_ms, room = dispatcher.due.now_ms(), dispatcher.lanes.room_to_refill(lane)
        lane.added_due_ms = None
        generation = lane.generation
        with dispatcher.lanes.row_reads.track(subscription_id) as left:
            # Deliveries in memory may have rows too, which are left out: ask for as many more.
            limit = room + len(lane.held)
            rows = await self._ledger.due_rows(subscription_id, now_ms, limit)
            elsewhere = lane.held_ids() | left
            waiting = [row for row in rows if row.id not in elsewhere]
            records, taken = await self._records(waiting[:room])
            next_due_ms = await self._ledger.next_due_ms(subscription_id, now_ms)
            # Rows that were put back during the read come before the rows that it returned.
            active = dispatcher.lanes.is_active(lane) and lane.generation == generation
            elsewhere = lane.held_ids() | left
            for row in waiting[:taken] if active else ():
                if row.id not in elsewhere:
                    self._take(row, records.get(row.event_id))
        lane.refilling = False
        caught_up = active and len(rows) < limit and len(waiting) <= taken
        dispatcher.refilled(lane, next_due_ms if caught_up else now_ms)

    async def _refill_ordered(self, lane: Lane, order: KeyOrder) -> None:
        """Read back rows of an ordered lane that may be attempted, as many as it has room for. The first time, learn which rows it has."""
        dispatcher, lanes, subscription_id = self._dispatcher, self._dispatcher.lanes, lane.subscription_id
        if not order.is_complete:
            with lanes.row_reads.track(subscription_id) as left:
                known = await self._ledger.ordered_rows(subscription_id)
                dispatcher.ordered.loaded(lane, order, order.load(known, lane.held_ids() | left))
        lane.added_due_ms = None
        generation, now_ms = lane.generation, dispatcher.due.now_ms()
        with lanes.row_reads.track(subscription_id) as left:
            wanted = order.due_rows(now_ms, handed_out_through(lane.ranges), lanes.room_to_refill(lane))
            rows = await self._ledger.open_rows([row.id for row in wanted])
            records, taken = await self._records(rows)
            active = lanes.is_active(lane) and lane.generation == generation
            elsewhere, found = lane.held_ids() | left, {row.id for row in rows}
            if lane.order is order:
                for gone in wanted:
                    if gone.id not in found and gone.id not in elsewhere:
                        dispatcher.ordered.ended(lane, order, gone)
                for row in rows[:taken] if active else ():
                    if row.id not in elsewhere and order.may_read(row, now_ms):
                        self._take(row, records.get(row.event_id))
        lane.refilling = False
        dispatcher.refilled(lane, None)

    def _take(self, row: OpenRow, record: Record | None) -> None:
        lane = self._dispatcher.lanes.lane(row.subscription_id)
        delivery = delivery_of(row, None if record is None else Event(record))
        self._dispatcher.lanes.hold_in(lane, delivery)
        (lane.failed_row_read if row.attempt_count else lane.row_read)()
        if record is None:
            logger().error("delivery.event_missing", event_id=row.event_id, subscription=row.subscription_id)
            self._dispatcher.exhaust(delivery, "neither the log nor the ledger has the event any more")
        else:
            self._dispatcher.queue(delivery)

    async def _records(self, rows: list[OpenRow]) -> tuple[dict[str, Record], int]:
        """Return the events of the first rows by their ids, and the number of these rows: all, or as many as fit into a refill."""
        found: dict[str, Record] = {}
        taken = size_bytes = 0
        part = _FETCH_FIRST
        while taken < len(rows) and size_bytes < _REFILL_BYTES_MAX:
            some = rows[taken : taken + part]
            records = await self._fetch(some)
            found |= records
            taken += len(some)
            size_bytes += sum(len(record.event) for record in records.values())
            # Sizes are known only after a fetch: estimate the next part from the events so far.
            part = max(1, (_REFILL_BYTES_MAX - size_bytes) * taken // max(1, size_bytes))
        return found, taken

    async def _fetch(self, rows: list[OpenRow]) -> dict[str, Record]:
        """Return the events of rows by their ids: from the log, or from the ledger's copies if the log has dropped them."""
        places = {row.event_id: ShardPosition(row.shard, row.position) for row in rows}
        found = {record.event_id: record for record in await self._log.fetch(list(places.values())) if record.event_id in places}
        missing = [place for event_id, place in places.items() if event_id not in found]
        if missing:
            found |= {record.event_id: record for record in await self._ledger.copies(missing) if record.event_id in places}
        return found

    async def _cancel_lanes(self) -> None:
        while True:
            subscription_id = await self._to_cancel.get()
            self._queued_to_cancel.discard(subscription_id)
            # A flush under way may still write unfinished rows of this subscription: read the rows after it.
            await self._recorder.wait_for_flush()
            while not self._replica.wanted(subscription_id) and await self._cancel_some(subscription_id):
                pass
            if self._replica.wanted(subscription_id):
                self._dispatcher.resume(subscription_id)

    async def _cancel_some(self, subscription_id: str) -> bool:
        dispatcher, lanes = self._dispatcher, self._dispatcher.lanes
        limit = _CANCEL_ROWS + len(lanes.lane(subscription_id).held)
        rows = await read_waiting(lanes, self._ledger.due_rows(subscription_id, None, limit), subscription_id)
        if self._replica.wanted(subscription_id):
            return False
        await end_waiting(lanes, rows, lambda delivery: dispatcher.finish(delivery, State.CANCELLED), self._recorder)
        dispatcher.forget_if_idle(lanes.lane(subscription_id))
        return bool(rows)
