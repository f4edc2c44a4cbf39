"""Lag: how far routing is behind the log; the figure stays true while the log cannot be read.

event log → log_follower → [lag] → ingest, metrics

Law: delivery trusts its own figure only while it reads the log. Otherwise the log's last answer counts, and while the log gives no
answer, the length of that silence.
"""

import asyncio
import contextlib

from prometheus_client import Gauge

from services.delivery.worker.log_follower import LogFollower
from services.delivery.worker.slot_floors import SlotFloors
from services.eventlog.errors import EventLogError
from services.eventlog.protocol import ReaderProgress
from services.eventlog.record import Lag
from services.runtime.clock import Clock

_EVERY_S = 1.0
# A stream may be open and yet bring no event. An age below this may only mean that the log's answer is as old as the last report.
_STALE_S = 5.0

_unrouted_age = Gauge(
    "hooktide_unrouted_age_seconds", "Age of the oldest event that is not routed yet, or how long the log has not answered."
)


class LagReporter:
    """Reports to the log what is routed, and keeps the log's answer."""

    def __init__(self, log: ReaderProgress, follower: LogFollower, floors: SlotFloors, clock: Clock) -> None:
        self._log = log
        self._follower = follower
        self._floors = floors
        self._clock = clock
        self._lag = Lag(0, None)
        self._answered_at = clock.monotonic()

    async def run(self) -> None:
        """Report for ever."""
        _unrouted_age.set_function(self.age_s)
        while True:
            with contextlib.suppress(EventLogError):
                self._lag = await self._report()
                self._answered_at = self._clock.monotonic()
            await asyncio.sleep(_EVERY_S)

    async def _report(self) -> Lag:
        """Report what is routed of all slots of the worker; return the lag that is left then."""
        for floor in list(self._floors):
            await self._log.report_routed([floor.place], floor.slots)
        return await self._log.report_routed(self._follower.routed_place(), self._floors.main_slots)

    def age_s(self) -> float:
        """Return the age of the oldest event that is not routed, in seconds."""
        oldest_ms, silent_s = self._lag.oldest_ms, self._clock.monotonic() - self._answered_at
        reported_s = 0.0 if oldest_ms is None else max(0.0, self._clock.now() - oldest_ms / 1000)
        if silent_s > _STALE_S:
            reported_s = max(reported_s, silent_s)
        own_s = self._follower.unrouted_age_s()
        return own_s if self._follower.is_reading and reported_s < _STALE_S else max(own_s, reported_s)
