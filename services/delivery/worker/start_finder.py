"""Start finder: finds the places in the log where subscriptions begin that want events from before their creation.

past_starts, event log → [start_finder] → past_starts

Law: before a place is handed on, the log has taken back that it may drop what lies above, and retention copies from there again.
"""

import asyncio
from typing import Never

from services.delivery.ledger.protocol import Ledger
from services.delivery.request.request_settings import Subscription
from services.delivery.worker.lane_modes import LaneModes
from services.delivery.worker.retention_loop import RetentionLoop
from services.eventlog.errors import EventLogError
from services.eventlog.filtered_read import ReadQuery
from services.eventlog.protocol import EventLogReader
from services.eventlog.record import ShardPosition, SlotProgress
from services.runtime.logs import logger

_RETRY_S = 1.0
_FORGET_EVERY_S = 3600.0


class StartFinder:
    """Finds one place at a time."""

    def __init__(self, log: EventLogReader, ledger: Ledger, lane_modes: LaneModes, retention: RetentionLoop) -> None:
        self._log = log
        self._ledger = ledger
        self._lane_modes = lane_modes
        self._starts = lane_modes.starts
        self._retention = retention

    async def run(self) -> Never:
        """Find places for ever. While the log cannot be read, all of them wait."""
        while True:
            try:
                async with asyncio.timeout(_FORGET_EVERY_S):
                    subscription_id = await self._starts.to_find.get()
            except TimeoutError:
                subscription_id = ""
            again_in_s = await self._look_up(subscription_id)
            while again_in_s > 0:
                await asyncio.sleep(again_in_s)
                again_in_s = await self._look_up(subscription_id)

    async def _look_up(self, subscription_id: str) -> float:
        """Find a subscription's place, and forget what the log has dropped; return after how many seconds to try again, 0 for never."""
        # Retention must not report what may be dropped between the steps, nor a repair change positions.
        async with self._retention.step_lock:
            if not self._lane_modes.follows_log:
                return _RETRY_S
            try:
                if (unfound := self._starts.unfound(subscription_id)) is not None:
                    at = await self._find(*unfound)
                    self._retention.copy_from(at)
                    self._starts.found(subscription_id, at, self._lane_modes.recorded_through)
                else:
                    self._starts.forget_deleted(await self._first_available(0))
            except EventLogError as error:
                logger().warning("subscription.start_unknown", subscription=subscription_id, reason=str(error), retry_s=_RETRY_S)
                return _RETRY_S
        return 0.0

    async def _find(self, subscription: Subscription, routed: int) -> int:
        """Return the position above which the log has the first event that a subscription wants."""
        assert subscription.start_ms is not None  # noqa: S101 - only such subscriptions are seen
        # Ids of events grow with the time of acceptance: no event of that time or later has a lower id than this one.
        before = f"evt_{max(0, subscription.start_ms):012x}{0:020x}"
        _, [point] = await self._log.resume_points([ShardPosition(0, 0, before)])
        at = min(point.position.position, routed)
        recorded = await self._ledger.recorded_place()
        released = [ShardPosition(each.shard, min(at, each.position)) for each in recorded]
        await self._log.rewind([SlotProgress(self._lane_modes.floors.slots, recorded, released)])
        # From here on the log drops nothing above `at`.
        return max(at, await self._first_available(at) - 1)

    async def _first_available(self, after: int) -> int:
        """Return the lowest position that the log has not dropped."""
        page = await self._log.read(ReadQuery(after=[ShardPosition(0, after)], through=[ShardPosition(0, after)], records_max=1))
        return page.first_available[0].position
