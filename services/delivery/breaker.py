"""Breaker: spares an endpoint that fails, and the work of trying it.

lane → [breaker] → attempt

Law 1: pure; time and chance arrive as arguments.
Law 2: while it is open one probe at a time is let through; deliveries held back by it use up no attempts.
"""

from dataclasses import dataclass

FAILURES_MAX = 10
_OPEN_MAX_S = 600.0
# Beyond these the maximum is reached from any first time of a millisecond or more; 2**n would in the end outgrow a float.
_DOUBLINGS_MAX = 20
_JITTER = 0.2


@dataclass(slots=True)
class Breaker:
    """The state for one subscription; closed to begin with."""

    open_first_s: float
    """How long it stays open the first time; each further time twice as long, up to ten minutes."""
    failures: int = 0
    """In a row."""
    openings: int = 0
    """In a row, without a success between them."""
    open_until: float | None = None
    """By the monotonic clock; None while closed."""
    probing: bool = False

    def permits(self, now: float) -> bool:
        """Say whether an attempt may start now."""
        return self.open_until is None or (now >= self.open_until and not self.probing)

    def started(self) -> None:
        """Note that an attempt starts."""
        if self.open_until is not None:
            self.probing = True

    def succeeded(self) -> None:
        """Note a success: it closes."""
        self.failures = self.openings = 0
        self.open_until, self.probing = None, False

    def failed(self, now: float, chance: float) -> bool:
        """Note a failure; returns True where it opens now. `chance` is uniform in [0, 1)."""
        self.failures += 1
        # What was under way when it opened does not open it again.
        if self.open_until is not None and not self.probing:
            return False
        if self.open_until is None and self.failures < FAILURES_MAX:
            return False
        wait_s = min(self.open_first_s * 2 ** min(self.openings, _DOUBLINGS_MAX), _OPEN_MAX_S) * (1 - _JITTER + 2 * _JITTER * chance)
        self.openings += 1
        self.open_until, self.probing = now + wait_s, False
        return True
