"""Clock: the only source of time.

Use wall time for times that are stored or sent, and monotonic time for waiting and measuring. Use boot time for a period that goes on
while the machine is suspended.
"""

import functools
import io
import time
from pathlib import Path
from typing import Protocol

_SCHEDULED = Path("/proc/thread-self/schedstat")
"""Linux: how many nanoseconds the thread ran, how many it was ready and did not run, and how often it ran."""
_SCHEDULED_BYTES_MAX = 128


class Clock(Protocol):
    """Reads the time; tests replace it with a clock that they move."""

    def now(self) -> float:
        """Return wall time in seconds since 1970-01-01T00:00:00Z."""
        ...

    def monotonic(self) -> float:
        """Return seconds from an arbitrary start, never going back."""
        ...

    def boottime(self) -> float:
        """Return seconds from an arbitrary start, never going back, and including the time that the machine was suspended."""
        ...

    def busy(self) -> float:
        """Return for how many seconds, since an arbitrary start, the calling thread has run or was ready to run and did not.

        Only one thread may call this on one clock.
        """
        ...


class SystemClock:
    """The machine's own clock."""

    # The library's functions themselves, without a wrapper: both are called several times for every event.
    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)
    # While Linux is suspended, its monotonic clock stops and its boot clock goes on. On other systems the monotonic clock goes on.
    boottime = staticmethod(functools.partial(time.clock_gettime, getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)))

    def __init__(self) -> None:
        """Open nothing yet."""
        self._scheduled: io.FileIO | None = None

    def busy(self) -> float:
        """Return as `Clock.busy`; if the system does not report how long the thread was ready and did not run, only how long it ran."""
        try:
            # The file stays open, since opening it takes longer than reading it.
            if self._scheduled is None:
                self._scheduled = _SCHEDULED.open("rb", buffering=0)
            self._scheduled.seek(0)
            run_ns, kept_ns, _ = self._scheduled.read(_SCHEDULED_BYTES_MAX).split()
        except (OSError, ValueError):
            return time.thread_time()
        return (int(run_ns) + int(kept_ns)) / 1e9


def unix_ms(clock: Clock) -> int:
    """Return wall time in whole milliseconds since 1970-01-01T00:00:00Z."""
    return int(clock.now() * 1000)
