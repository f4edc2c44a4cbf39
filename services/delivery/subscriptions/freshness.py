"""Freshness: whether this process may still rely on its copy of the subscriptions, after it stood still.

[freshness] → read_barrier, dispatcher, transport

A frozen process (a suspended machine, a paused container) hears of no change, and the registry waits for it only until its read lease
ends. When the process goes on, it may do anything first: take answers, ring timers, dial.

Law 1: after a gap of more than `GAP_MAX_S`, no event is routed and no request leaves until the registry has answered a call that
began after the gap.
Law 2: every caller of `holds` finds a gap, not only the heartbeat. The clock goes on while the machine is suspended.
"""

import asyncio
from collections.abc import Callable
from typing import Never

from services.runtime.clock import Clock
from services.runtime.logs import logger

GAP_MAX_S = 1.0
_BEAT_S = 0.4


class Freshness:
    """Watches for gaps on one event loop."""

    def __init__(self, clock: Clock, *, lost: Callable[[], None], proven: Callable[[], None]) -> None:
        """`lost` is called after a gap, and `proven` after the proof that follows. The event loop calls each soon, in that order."""
        self._clock = clock
        self._beat_at = clock.boottime()
        self._gaps = 0
        self._holds = True
        self._lost, self._proven = lost, proven

    def holds(self) -> bool:
        """Return whether there has been no gap since the latest proof, or none at all."""
        if self._clock.boottime() - self._beat_at > GAP_MAX_S:
            self._beat()
        return self._holds

    def gaps(self) -> int:
        """Return how many gaps there have been; pass this number, read before the call to the registry, to `prove`."""
        self.holds()
        return self._gaps

    def prove(self, gaps: int) -> bool:
        """Note that the registry has answered a call that began after `gaps` gaps; return whether no gap came after that."""
        if self.gaps() != gaps:
            return False
        if not self._holds:
            self._holds = True
            logger().info("replica.confirmed")
            asyncio.get_running_loop().call_soon(self._proven)
        return True

    async def run(self) -> Never:
        """Beat for ever."""
        while True:
            self._beat()
            await asyncio.sleep(_BEAT_S)

    def _beat(self) -> None:
        now = self._clock.boottime()
        gap_s, self._beat_at = now - self._beat_at, now
        if gap_s <= GAP_MAX_S:
            return
        self._gaps += 1
        self._holds = False
        logger().warning(
            "process.paused",
            paused_s=round(gap_s, 1),
            effect="nothing is sent until the registry confirms that the subscriptions are current",
        )
        asyncio.get_running_loop().call_soon(self._lost)
