"""Lag: how many events of the log are not routed, and how old they are, even while delivery is down or cannot read.

delivery's reports → event log → [lag] → metrics
"""

import asyncio
import contextlib

from prometheus_client import Gauge

from services.eventlog.errors import EventLogError
from services.eventlog.protocol import EventLogMaintenance
from services.eventlog.record import Lag
from services.runtime.clock import Clock

_EVERY_S = 1.0

_unrouted_events = Gauge(
    "hooktide_log_unrouted_events", "Events in the log, counted from the oldest event that delivery has not reported as routed."
)
_unrouted_age = Gauge(
    "hooktide_log_unrouted_age_seconds", "Age of the oldest event in the log that delivery has not reported as routed, in seconds."
)


class LagMonitor:
    """Watches the lag of one log: the events that delivery has not routed yet."""

    def __init__(self, log: EventLogMaintenance, clock: Clock) -> None:
        self._log = log
        self._clock = clock
        self._lag = Lag(0, None)

    def age_s(self) -> float:
        """Return the age of the oldest event that is not routed, in seconds; the age grows between two looks, too."""
        return 0.0 if self._lag.oldest_ms is None else max(0.0, self._clock.now() - self._lag.oldest_ms / 1000)

    async def look(self) -> None:
        """Read the lag from the log once."""
        self._lag = await self._log.lag()
        _unrouted_events.set(self._lag.events)

    async def run(self) -> None:
        """Read the lag every second; after the log has refused events because it was full, check whether it has room again."""
        _unrouted_age.set_function(self.age_s)
        while True:
            with contextlib.suppress(EventLogError):  # the disk is full, or the log is closing or has failed, and reports a failure itself
                await self.look()
                await self._log.check_room()
            await asyncio.sleep(_EVERY_S)
