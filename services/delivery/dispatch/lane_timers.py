"""Lane timers: one timer of the event loop wakes many lanes.

dispatcher → [lane_timers] → dispatcher
"""

import asyncio
import heapq
from collections.abc import Callable

from services.delivery.dispatch.lane import Lane
from services.runtime.clock import Clock


class LaneTimers:
    """Wakes lanes at the times that they ask for; a lane that asks again is woken at the earlier time."""

    def __init__(self, clock: Clock, wake: Callable[[Lane], None]) -> None:
        self._clock = clock
        self._wake = wake
        self._heap: list[tuple[float, int, Lane]] = []
        self._asked: dict[Lane, float] = {}
        self._handle: asyncio.TimerHandle | None = None
        self._count = 0
        self._closed = False

    def at(self, when: float, lane: Lane) -> None:
        """Wake a lane at a time of the monotonic clock, unless it will be woken earlier anyway."""
        if self._closed or self._asked.get(lane, float("inf")) <= when:
            return
        self._asked[lane] = when
        self._count += 1
        heapq.heappush(self._heap, (when, self._count, lane))
        self._arm()

    def close(self) -> None:
        """Wake no lane any more."""
        self._closed = True
        if self._handle is not None:
            self._handle.cancel()

    def _arm(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        if self._heap and not self._closed:
            delay = max(0.0, self._heap[0][0] - self._clock.monotonic())
            self._handle = asyncio.get_running_loop().call_later(delay, self._fire)

    def _fire(self) -> None:
        now = self._clock.monotonic()
        due = []
        while self._heap and self._heap[0][0] <= now:
            when, _, lane = heapq.heappop(self._heap)
            if self._asked.get(lane) == when:
                del self._asked[lane]
                due.append(lane)
        self._arm()
        for lane in due:
            self._wake(lane)
