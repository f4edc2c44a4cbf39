"""Steady clock: wall time that believes a step only once it has lasted.

A clock that is far ahead for some seconds (after a start with a wrong clock, or by a mistaken time server) must not make anything old.
What is dropped, ended or stamped by its age therefore asks this clock.
"""

import asyncio

from services.runtime.clock import Clock

CONFIRM_S = 60.0
_STEP_S = 1.0
_LOOK_S = 1.0


def confirm_s(window_s: float) -> float:
    """Return how long a step has to last where times of `window_s` are measured: a minute, less where they are short."""
    return min(CONFIRM_S, window_s / 10)


class SteadyClock:
    """A `Clock` over another one; a step of its wall time is passed on once it has lasted for `confirm_s` seconds."""

    def __init__(self, clock: Clock, confirm_s: float = CONFIRM_S) -> None:
        self._clock = clock
        self._confirm_s = confirm_s
        self.monotonic = clock.monotonic
        self.boottime = clock.boottime
        self.busy = clock.busy
        self._offset_s = clock.now() - clock.boottime()
        # The offset after a step that is not believed yet, and since when it has been seen.
        self._doubted: tuple[float, float] | None = None
        self._settled_at = clock.boottime() + confirm_s

    def now(self) -> float:
        """Return wall time in seconds since 1970; a step that has not lasted is left out."""
        boottime = self._clock.boottime()
        offset_s, doubted = self._clock.now() - boottime, self._doubted
        if abs(offset_s - self._offset_s) <= _STEP_S:
            self._offset_s, self._doubted = offset_s, None
        elif doubted is None or abs(offset_s - doubted[0]) > _STEP_S:
            self._doubted = (offset_s, boottime)
            self._settled_at = boottime + self._confirm_s
        elif boottime - doubted[1] >= self._confirm_s:
            self._offset_s, self._doubted = offset_s, None
        return boottime + self._offset_s

    def settled(self) -> bool:
        """Return whether wall time has gone on evenly for `confirm_s`, also since this clock began: what is dropped now is old."""
        self.now()
        return self._doubted is None and self._clock.boottime() >= self._settled_at

    async def sleep(self, seconds: float) -> None:
        """Sleep, and look at the wall clock meanwhile, so that no step goes unseen."""
        ends_at = self.boottime() + seconds
        while (left_s := ends_at - self.boottime()) > 0:
            await asyncio.sleep(min(left_s, _LOOK_S))
            self.now()
