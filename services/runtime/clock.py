"""Clock: the one place where time enters.

Wall time is for what is stored or sent; monotonic time is for waiting and measuring; boot time is for what must end although
the machine was suspended.
"""

import functools
import io
import time
from pathlib import Path
from typing import Protocol

_SCHEDULED = Path("/proc/thread-self/schedstat")
"""Linux: nanoseconds run and nanoseconds kept from running, and how often it ran."""
_SCHEDULED_BYTES_MAX = 128


class Clock(Protocol):
    """Readings of time, so that tests can move them."""

    def now(self) -> float:
        """Return wall time in seconds since 1970-01-01T00:00:00Z."""
        ...

    def monotonic(self) -> float:
        """Return seconds from an arbitrary start, never going back."""
        ...

    def boottime(self) -> float:
        """Return seconds from an arbitrary start, never going back, with the time in which the machine was suspended."""
        ...

    def busy(self) -> float:
        """Return for how many seconds the calling thread has run, or been ready to run and kept from it, since an arbitrary start.

        A clock is asked for this by one thread.
        """
        ...


class SystemClock:
    """The machine's own clock."""

    # The functions themselves, since both are called several times for every event.
    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)
    # Linux stops its monotonic clock while it is suspended, and has another one. Others let theirs go on.
    boottime = staticmethod(functools.partial(time.clock_gettime, getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)))

    def __init__(self) -> None:
        """Begin."""
        self._scheduled: io.FileIO | None = None

    def busy(self) -> float:
        """Return what `Clock.busy` does; where the system does not tell how long a thread was kept waiting, for how long it has run."""
        try:
            # Kept open: to open it takes longer than to read it.
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
