"""Clock: the one place where time enters.

Wall time is for what is stored or sent; monotonic time is for waiting and measuring.
"""

import time
from typing import Protocol


class Clock(Protocol):
    """Two readings of time, so that tests can move both."""

    def now(self) -> float:
        """Return wall time in seconds since 1970-01-01T00:00:00Z."""
        ...

    def monotonic(self) -> float:
        """Return seconds from an arbitrary start, never going back."""
        ...


class SystemClock:
    """The machine's own clock."""

    # The functions themselves, since both are called several times for every event.
    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)


def unix_ms(clock: Clock) -> int:
    """Return wall time in whole milliseconds since 1970-01-01T00:00:00Z."""
    return int(clock.now() * 1000)
