"""Breaker: spares an endpoint that fails, and the work of trying it.

lane → [breaker] → attempt

Law 1: pure; time and chance arrive as arguments.
Law 2: while it is open one probe at a time is let through; deliveries held back by it use up no attempts.
Law 3: it changes no more than once in its first time, however the endpoint comes and goes: what would open it
sooner lets the endpoint rest until then.
"""

from dataclasses import dataclass

FAILURES_MAX = 10
# Times the first time; ten minutes by default.
_OPEN_MAX = 20
# Beyond these the maximum is reached; 2**n would in the end outgrow a float.
_DOUBLINGS_MAX = 5
_JITTER = 0.2


@dataclass(slots=True)
class Breaker:
    """The state for one subscription; closed to begin with."""

    open_first_s: float
    """How long it stays open the first time; each further time twice as long, up to twenty times."""
    failures: int = 0
    """In a row."""
    openings: int = 0
    """In a row, without a success between them."""
    open_until: float | None = None
    """By the monotonic clock; None while closed."""
    probing: bool = False
    closed_at: float | None = None
    """When it closed last, by the monotonic clock."""
    rest_until: float = 0.0
    """Closed, yet nothing is to be sent until then."""

    @property
    def over_at(self) -> float | None:
        """From when on a new one in its place would do the same; None where that depends on an answer."""
        if self.open_until is not None or self.failures:
            return None
        return self.rest_until if self.closed_at is None else max(self.rest_until, self.closed_at + self.open_first_s)

    def permits(self, now: float) -> bool:
        """Say whether an attempt may start now."""
        if self.open_until is None:
            return now >= self.rest_until
        return now >= self.open_until and not self.probing

    def started(self) -> None:
        """Note that an attempt starts."""
        if self.open_until is not None:
            self.probing = True

    def withdrawn(self, began: float) -> None:
        """Note that an attempt that started then has come to nothing: if it was the probe, another one may start."""
        if self.open_until is not None and began >= self.open_until:
            self.probing = False

    def succeeded(self, now: float) -> None:
        """Note a success: a probe's closes it; of what was under way when it opened, none does."""
        self.failures = 0
        if self.open_until is None or now >= self.open_until:
            self.closed_at = self.closed_at if self.open_until is None else now
            self.openings = 0
            self.open_until, self.probing = None, False

    def failed(self, now: float, chance: float) -> bool:
        """Note a failure; returns True where it opens now. `chance` is uniform in [0, 1)."""
        self.failures += 1
        # What was under way when it opened does not open it again.
        if self.open_until is not None and not self.probing:
            return False
        if self.open_until is None:
            if self.failures < FAILURES_MAX:
                return False
            if self.closed_at is not None and now < self.closed_at + self.open_first_s:
                self.rest_until = self.closed_at + self.open_first_s
                return False
        wait_s = self.open_first_s * min(2 ** min(self.openings, _DOUBLINGS_MAX), _OPEN_MAX) * (1 + _JITTER * chance)
        self.openings += 1
        self.open_until, self.probing = now + wait_s, False
        return True
