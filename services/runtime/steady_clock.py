"""Steady clock: wall time that follows a step of the system's clock only after the step has lasted.

The system's clock can be far ahead for some seconds, after a start with a wrong clock or because of a mistaken time server. Nothing may
expire because of that. So code that drops, ends or stamps something by its age uses this clock.
"""

import asyncio

from services.runtime.clock import Clock

CONFIRM_S = 60.0
_STEP_S = 1.0
_LOOK_S = 1.0


def confirm_s(window_s: float) -> float:
    """Return how long a step has to last if periods of `window_s` are measured: a minute, or a tenth of the period if that is less."""
    return min(CONFIRM_S, window_s / 10)


class SteadyClock:
    """A `Clock` over another clock; it passes on a step of the other's wall time once the step has lasted for `confirm_s` seconds."""

    def __init__(self, clock: Clock, confirm_s: float = CONFIRM_S) -> None:
        self._clock = clock
        self._confirm_s = confirm_s
        self.monotonic = clock.monotonic
        self.boottime = clock.boottime
        self.busy = clock.busy
        self._offset_s = clock.now() - clock.boottime()
        # The offset after a step that is not confirmed yet, and the boot time at which the step was first seen.
        self._doubted: tuple[float, float] | None = None
        self._settled_at = clock.boottime() + confirm_s

    def now(self) -> float:
        """Return wall time in seconds since 1970, without a step that is not confirmed yet."""
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
        """Return whether this clock is `confirm_s` old and wall time has had no step for as long; only then may anything expire by age."""
        self.now()
        return self._doubted is None and self._clock.boottime() >= self._settled_at

    async def sleep(self, seconds: float) -> None:
        """Sleep, and read the wall clock every second, so that no step is missed."""
        ends_at = self.boottime() + seconds
        while (left_s := ends_at - self.boottime()) > 0:
            await asyncio.sleep(min(left_s, _LOOK_S))
            self.now()
