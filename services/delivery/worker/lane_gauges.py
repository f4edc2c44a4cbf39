"""Lane gauges: how many lanes are behind, and about how much waits in the log for them.

lanes → [lane_gauges] → metrics

Law: the lanes are counted when the metrics are read, and at most once a second.
"""

from typing import NamedTuple

from prometheus_client import Gauge

from services.delivery.dispatch.lane_table import LaneTable
from services.delivery.dispatch.owed_ranges import about, is_behind
from services.delivery.worker.lane_modes import LaneModes
from services.runtime.clock import Clock

_COUNTED_EVERY_S = 1.0

_lanes = Gauge("hooktide_lanes", "Lanes in memory: live, behind (events wait in the log), or joining (about to be live again).", ["state"])
_waiting = Gauge("hooktide_waiting_deliveries", "About how many deliveries wait in the log for lanes that are behind or joining.")


class LaneCounts(NamedTuple):
    """What the gauges show."""

    live: int
    behind: int
    joining: int
    waiting: int


class LaneGauges:
    """The gauges over the lanes of one worker."""

    def __init__(self, lanes: LaneTable, lane_modes: LaneModes, clock: Clock) -> None:
        self._table = lanes
        self._lane_modes = lane_modes
        self._clock = clock
        self._counted: tuple[float, LaneCounts] | None = None

    def publish(self) -> None:
        """Let the metrics show these lanes from now on."""
        _lanes.labels("live").set_function(lambda: self.counts().live)
        _lanes.labels("behind").set_function(lambda: self.counts().behind)
        _lanes.labels("joining").set_function(lambda: self.counts().joining)
        _waiting.set_function(lambda: self.counts().waiting)

    def counts(self) -> LaneCounts:
        """Return the counts, which are at most a second old."""
        now = self._clock.monotonic()
        if self._counted is None or now >= self._counted[0] + _COUNTED_EVERY_S:
            self._counted = now, self._count()
        return self._counted[1]

    def _count(self) -> LaneCounts:
        behind = joining = waiting = 0
        for lane in self._table:
            if not lane.ranges:
                continue
            if is_behind(lane.ranges):
                behind += 1
            else:
                joining += 1
            for owed in lane.ranges:
                if owed.at is not None:
                    waiting += about(owed, owed.at, self._lane_modes.through(owed))
        return LaneCounts(len(self._table) - behind - joining, behind, joining, waiting)
