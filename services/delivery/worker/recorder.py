"""Recorder: gathers routed deliveries and their states, and flushes them into the ledger.

unflushed_deliveries → [recorder] → ledger; then dispatcher

Law 1: one flush holds the deliveries of a chunk, in the states that they have by then, and the cursor that passes the chunk.
Law 2: flushes run one at a time. After the ledger refuses a flush, nothing is sent until that flush succeeds.
"""

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from prometheus_client import Counter

from services.delivery.dispatch import lifecycle
from services.delivery.dispatch.dispatcher import Dispatcher
from services.delivery.dispatch.lane_table import UNRECORDED_SENT_MAX
from services.delivery.errors import LedgerFullError
from services.delivery.ledger.protocol import FIRST_GROUP, DeliveryKey, Flush, GroupCursor, Ledger, ShardCursor
from services.delivery.ledger.rows import DoneRow, LaneRow, NoticeRow, OpenRow, done_row, open_row
from services.delivery.model import Chunk, Delivery, Phase, State
from services.delivery.notices import notice
from services.delivery.worker.unflushed_deliveries import UnflushedDeliveries
from services.runtime import failpoints
from services.runtime.clock import Clock
from services.runtime.ids import id_text
from services.runtime.logs import logger

# Wait 40 ms so that a transaction is worth its fsync; an attempt that starts at once does not wait for it. The wait ends early, but not
# before 15 ms, if the unflushed deliveries are urgent.
_LINGER_MIN_S, _LINGER_MAX_S = 0.015, 0.04
# A delivery is written once, in its final state, if its attempt begins within `_WAIT_FOR_TURN_S` and ends within `_WAIT_FOR_END_S`.
# The former is longer: under load deliveries wait their turn, and writing each of them twice would make them wait longer.
_WAIT_FOR_END_S = 0.05
_WAIT_FOR_TURN_S = 0.6
_ROWS_MAX = 1000
# To look up an enum's member by its class takes 0.14 µs, and these are compared with for every delivery.
_HELD, _IN_FLIGHT, _ENDED, _EXHAUSTED = Phase.HELD, Phase.IN_FLIGHT, Phase.ENDED, State.EXHAUSTED
_RETRY_S = 1.0

_rows_written = Counter("hooktide_ledger_rows_total", "Rows added to the ledger, by kind: open or finished.", ["kind"])
_ids_taken = Counter("hooktide_delivery_ids_taken_total", "Deliveries that got another id, because theirs belonged to another delivery.")
_rows_opened, _rows_finished = _rows_written.labels("open"), _rows_written.labels("finished")


@dataclass(slots=True)
class _Batch:
    """The contents of one flush, as they were when it began; changes during the flush belong to the next."""

    written_ms: int
    opened: list[OpenRow] = field(default_factory=list)
    updated: list[OpenRow] = field(default_factory=list)
    closed: list[bytes] = field(default_factory=list)
    finished: list[DoneRow] = field(default_factory=list)
    chunks: list[Chunk] = field(default_factory=list)
    written: list[Delivery] = field(default_factory=list)
    settled: list[Delivery] = field(default_factory=list)
    to_queue: list[Delivery] = field(default_factory=list)
    notices: list[NoticeRow] = field(default_factory=list)
    lanes: list[LaneRow] = field(default_factory=list)
    lanes_done: list[str] = field(default_factory=list)

    def flush(self) -> Flush:
        """Return what the transaction writes."""
        last = {chunk.shard: chunk for chunk in self.chunks}.values()
        shards = tuple([ShardCursor(chunk.shard, chunk.position, chunk.event_id, chunk.through) for chunk in last])
        cursors = [GroupCursor(FIRST_GROUP, shards)] if shards else []
        return Flush(
            self.opened,
            self.updated,
            self.closed,
            self.finished,
            cursors,
            self.written_ms,
            lanes=self.lanes,
            lanes_done=self.lanes_done,
            notices=self.notices,
        )


class Recorder:
    """Flushes for one worker."""

    def __init__(
        self, ledger: Ledger, unflushed: UnflushedDeliveries, dispatcher: Dispatcher, clock: Clock, *, wanted: Callable[[str], bool]
    ) -> None:
        """`wanted` returns whether events may still be delivered to a subscription."""
        self._ledger = ledger
        self._unflushed = unflushed
        self._dispatcher = dispatcher
        self._clock = clock
        self._wanted = wanted
        self._chunks = unflushed.chunks
        self._changed = unflushed.changed
        self._outbox = unflushed.outbox
        self._flush_wanted = unflushed.flush_wanted
        self._flush_ended = asyncio.Event()
        self._flushes_begun = 0
        self._flushes_done = 0
        self._closing = False

    async def wait_until_empty(self) -> None:
        """Wait until nothing is left to flush."""
        while self._chunks or self._changed or self._outbox or self._flushes_done < self._flushes_begun:
            await self._wait_for_flush_end()

    async def wait_for_flush(self) -> None:
        """Wait for the end of a flush that begins after this call; a flush under way has ended by then too."""
        number = self._flushes_begun + 1
        while self._flushes_done < number:
            await self._wait_for_flush_end()

    async def wait_until_recorded(self) -> None:
        """Wait until everything that is routed is written. The caller must keep more from being routed until then."""
        while self._chunks:
            await self._wait_for_flush_end()
        await self.wait_for_flush()

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
        while not (self._closing and not self._chunks and not self._changed and not self._outbox):
            await self._flush_wanted.wait()
            if not self._closing:
                await self._linger()
            self._flush_wanted.clear()
            self._flushes_begun += 1
            batch = self._collect()
            if flush := batch.flush():
                failpoints.reached("delivery.before_flush")
                renamed = await self._write_flush(flush)
                failpoints.reached("delivery.after_flush")
                if renamed:
                    _rename(batch.written, renamed)
                self._after_flush(batch)
            self._flushes_done += 1
            self._flush_ended.set()
            self._unflushed.make_room()
            if self._changed:
                self._flush_wanted.set()
            elif self._chunks:
                asyncio.get_running_loop().call_later(_WAIT_FOR_END_S, self._flush_wanted.set)

    async def _linger(self) -> None:
        await asyncio.sleep(_LINGER_MIN_S)
        ends_at = self._clock.monotonic() + _LINGER_MAX_S - _LINGER_MIN_S
        self._unflushed.urgent.clear()
        while not self._unflushed.is_urgent() and (left_s := ends_at - self._clock.monotonic()) > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await self._unflushed.urgent.wait()
            self._unflushed.urgent.clear()

    def _is_due(self, chunk: Chunk, now: float, batch: _Batch) -> bool:
        """Return whether a chunk is to be written as it stands; if not, its attempts may still end soon."""
        if chunk.unsettled == 0 or chunk.record_first or self._closing or chunk.routed_at <= now - _WAIT_FOR_TURN_S:
            return True
        # Half of the permitted unrecorded sends would remain after this flush. Write this chunk, so that those behind it can be recorded
        # before sending has to stop.
        if self._dispatcher.lanes.unrecorded_sent - len(batch.settled) - len(self._changed) >= UNRECORDED_SENT_MAX // 2:
            return True
        sent_by = now - _WAIT_FOR_END_S
        return any(
            delivery.phase is _IN_FLIGHT and delivery.sent_at is not None and delivery.sent_at <= sent_by for delivery in chunk.deliveries
        )

    def _collect(self) -> _Batch:
        """Take what the next transaction writes."""
        batch, rows, now = _Batch(self._dispatcher.due.now_ms()), 0, self._clock.monotonic()
        while self._chunks and rows < _ROWS_MAX and self._is_due(self._chunks[0], now, batch):
            chunk = self._chunks[0]
            self._chunks.popleft()
            batch.chunks.append(chunk)
            rows += len(chunk.deliveries)
            for delivery in chunk.deliveries:
                self._write(batch, delivery)
                delivery.chunk = None
                if chunk.record_first and delivery.phase is _HELD:
                    batch.to_queue.append(delivery)
        # Up to as many rows again for changed deliveries, so that routing never keeps their states from being written.
        for delivery in list(itertools.islice(self._changed, _ROWS_MAX)):
            del self._changed[delivery]
            self._write(batch, delivery)
        if self._dispatcher.lanes.changed:
            batch.lanes, batch.lanes_done = self._dispatcher.lanes.take_changed()
        if self._outbox:
            batch.notices = self._outbox.take()
        return batch

    def _write(self, batch: _Batch, delivery: Delivery) -> None:
        if delivery.phase in lifecycle.WAITING and not self._wanted(delivery.subscription_id):
            self._dispatcher.cancel_waiting(delivery)
        if delivery.phase is _ENDED:
            batch.finished.append(done_row(delivery))
            if delivery.recorded:
                batch.closed.append(delivery.id)
            if delivery.state is _EXHAUSTED and (exhausted := notice.exhausted(delivery)) is not None:
                self._outbox.add(exhausted)
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

    def _after_flush(self, batch: _Batch) -> None:
        dispatcher = self._dispatcher
        self._unflushed.note_flushed(batch.chunks)
        self._outbox.flushed()
        lifecycle.record(batch.written)
        _rows_opened.inc(len(batch.opened))
        _rows_finished.inc(len(batch.finished))
        for delivery in batch.settled:
            dispatcher.release(delivery)
        for delivery in batch.to_queue:
            dispatcher.queue(delivery)
        dispatcher.pump()


def _rename(deliveries: Iterable[Delivery], renamed: Mapping[DeliveryKey, bytes]) -> None:
    """Give deliveries the ids under which the ledger has written them."""
    for delivery in deliveries:
        new_id = renamed.get(DeliveryKey(delivery.event_id, delivery.subscription_id, delivery.job_id))
        if new_id is not None:
            logger().error(
                "delivery.id_taken",
                id=id_text("dlv", delivery.id),
                given=id_text("dlv", new_id),
                event_id=delivery.event_id,
                subscription=delivery.subscription_id,
                reason="another delivery has this id; this one got another id and is sent as usual",
            )
            _ids_taken.inc()
            delivery.id = new_id
