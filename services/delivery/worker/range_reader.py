"""Range reader: reads pages of the log for lanes that are behind, and hands their events out.

event log → page_cache → [range_reader] → lane → dispatcher

Law 1: a page is read only while its lane may send, and only up to what is recorded.
Law 2: a page that was asked for before a pause, a change or a deletion of its subscription, or before this process stood still, is
dropped.
"""

import asyncio

from services.delivery.dispatch.dispatcher import Dispatcher
from services.delivery.dispatch.lane import Lane
from services.delivery.dispatch.owed_ranges import is_read, note_page
from services.delivery.model import Delivery, Event, OwedRange, delivery_id
from services.delivery.request.order_key import order_key
from services.delivery.request.request_settings import Subscription
from services.delivery.subscriptions.read_barrier import ReadBarrier
from services.delivery.worker.lane_modes import LaneModes
from services.delivery.worker.page_cache import PageCache
from services.delivery.worker.unflushed_deliveries import UnflushedDeliveries
from services.eventlog.errors import EventLogError
from services.eventlog.filtered_read import ReadPage, ReadQuery
from services.eventlog.record import Record, ShardPosition
from services.runtime.logs import logger

_AT_ONCE = 2
_RETRY_S = 1.0


class PageRequests:
    """The lanes for which a page is to be read, each at most once."""

    def __init__(self) -> None:
        self._lanes: asyncio.Queue[Lane] = asyncio.Queue()  # bounded: each lane is in it once

    def add(self, lane: Lane) -> None:
        """Request a page for a lane, unless one is requested or being read already."""
        if not lane.paging:
            lane.paging = True
            self._lanes.put_nowait(lane)

    async def next(self) -> Lane:
        """Wait for a request; return its lane."""
        return await self._lanes.get()


class RangeReader:
    """Reads pages, two at a time."""

    def __init__(
        self,
        pages: PageCache,
        requests: PageRequests,
        dispatcher: Dispatcher,
        lane_modes: LaneModes,
        unflushed: UnflushedDeliveries,
        barrier: ReadBarrier,
    ) -> None:
        self._pages = pages
        self._requests = requests
        self._dispatcher = dispatcher
        self._lanes = dispatcher.lanes
        self._lane_modes = lane_modes
        self._unflushed = unflushed
        self._barrier = barrier

    async def run(self) -> None:
        """Read for ever."""
        async with asyncio.TaskGroup() as group:
            for _ in range(_AT_ONCE):
                group.create_task(self._read_lanes())

    async def _read_lanes(self) -> None:
        while True:
            lane = await self._requests.next()
            try:
                again_in_s = await self._read(lane)
            except EventLogError as error:
                logger().warning("lane.page_failed", subscription=lane.subscription_id, reason=str(error))
                again_in_s = _RETRY_S
            lane.paging = False
            if again_in_s:
                self._dispatcher.wake_in(lane, again_in_s)
                await asyncio.sleep(0)  # thousands of lanes may have to wait, and nothing else would run meanwhile
            else:
                self._dispatcher.wake(lane)
                self._dispatcher.forget_if_idle(lane)

    async def _read(self, lane: Lane) -> float:
        """Read a page and hand it out; return after how many seconds to look at the lane again, 0 for at once."""
        subscription = self._lanes.sendable(lane)
        if not lane.ranges or subscription is None:
            return 0.0
        if not self._lane_modes.follows_log or not self._barrier.holds():
            return _RETRY_S
        owed = lane.ranges[0]
        through = self._lane_modes.through(owed)
        if owed.at is None or owed.read_through >= through:
            self._lane_modes.wait(lane, owed)
            return 0.0
        room = self._lanes.room_for_page(lane)
        if room <= 0:
            return 0.0
        if not lane.is_proven and (not lane.has_read_turn or not lane.consumer.unproven.wants_page(lane)):
            wait_s = lane.consumer.unproven.take_read_turn(asyncio.get_running_loop().time())
            if wait_s > 0:
                lane.has_read_turn = True
                return wait_s
        lane.has_read_turn = False
        generation, after = lane.generation, owed.read_through
        page = await self._pages.read(_query(subscription, owed, through, room))
        is_current = lane.generation == generation and owed.read_through == after and not owed.overtaken and self._lane_modes.follows_log
        if is_current and self._barrier.holds() and self._lanes.sendable(lane) is subscription:
            self._hand_out(lane, owed, subscription, page)
        return 0.0

    def _hand_out(self, lane: Lane, owed: OwedRange, subscription: Subscription, page: ReadPage) -> None:
        if (first := page.first_available[0].position) > owed.read_through + 1:
            logger().error("lane.events_missing", subscription=subscription.id, after=owed.read_through, first_available=first)
            owed.overtaken = first - 1
            self._unflushed.add_range(owed)
            return
        for record in page.records:
            self._add(lane, owed, subscription, record)
        note_page(owed, page.scanned_through[0].position, len(page.records))
        if is_read(owed):
            self._dispatcher.backlog.join_queues(lane)
        if not owed.handed:
            self._unflushed.add_range(owed)
        self._dispatcher.pump()

    def _add(self, lane: Lane, owed: OwedRange, subscription: Subscription, record: Record) -> None:
        delivery = Delivery(
            delivery_id(record.event_id, subscription.id),
            record.event_id,
            record.shard,
            record.partition,
            record.position,
            record.type,
            record.accepted_ms,
            subscription.id,
            subscription.consumer_id,
            subscription.revision,
            Event(record),
            subscription.settings.content_mode,
        )
        delivery.owed = owed
        owed.handed.append(delivery)
        lane.consumer.handed += 1
        if lane.order is not None:
            delivery.order_key = order_key(record.event, record.event_id)
            lane.order.add(delivery)
        if owed.record_first > 0 or record.position <= self._lane_modes.record_first_through:
            owed.record_first = max(0, owed.record_first - 1)
            self._lanes.hold(delivery)
            self._unflushed.add_range(owed)
        elif lane.order is not None:
            self._dispatcher.ordered.add(lane, lane.order, delivery)
        else:
            self._dispatcher.add(delivery, lane)


def _query(subscription: Subscription, owed: OwedRange, through: int, records_max: int) -> ReadQuery:
    return ReadQuery(
        after=[ShardPosition(0, owed.read_through)],
        through=[ShardPosition(0, through)],
        types=subscription.types,
        source=subscription.source,
        audiences=("", subscription.consumer_id),
        records_max=records_max,
    )
