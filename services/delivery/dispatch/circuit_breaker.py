"""Circuit breaker: stops attempts to a sink that keeps failing, until a probe succeeds.

lane → dispatcher → [sink_health: circuit_breaker: failure_rate] → lane

It opens after ten failures in a row, or if at least half of at least twenty attempts within 60 s have failed.

Law 1: pure; time and chance arrive as arguments.
Law 2: once its wait is over, an open breaker permits one probe at a time. Deliveries that it holds back use up no attempts.
Law 3: the breaker opens or closes at most once in `open_first_s`, even if the sink flaps. If a failure would open it sooner, the lane
rests until that time is over.
"""

from dataclasses import dataclass, field

from services.delivery.dispatch.failure_rate import FailureRate

FAILURES_MAX = 10
RATE_ATTEMPTS_MIN = 20
_RATE_MAX = 0.5
# In multiples of `open_first_s`; ten minutes by default.
_OPEN_MAX = 20
# After so many doublings the maximum is reached; without this limit 2**n would in the end outgrow a float.
_DOUBLINGS_MAX = 5
_JITTER = 0.2


@dataclass(slots=True)
class CircuitBreaker:
    """The state for one sink; closed at first."""

    open_first_s: float
    """How long it stays open the first time, before jitter; each further time twice as long, up to twenty times as long."""
    failures: int = 0
    """How many in a row."""
    openings: int = 0
    """How often in a row it has opened, without a success in between."""
    open_until: float | None = None
    """When the next probe may start, in seconds of the monotonic clock; None while the breaker is closed."""
    probing: bool = False
    closed_at: float | None = None
    """When it closed last, by the monotonic clock."""
    rest_until: float = 0.0
    """The breaker is closed, but no attempt may start until then."""
    rate: FailureRate = field(default_factory=FailureRate)
    """The attempts that ended since it closed last."""

    @property
    def expires_at(self) -> float | None:
        """When a new breaker in its place would act the same; None if that depends on an answer."""
        if self.open_until is not None or self.failures:
            return None
        at = max(self.rest_until, self.rate.expires_at)
        return at if self.closed_at is None else max(at, self.closed_at + self.open_first_s)

    def permits(self, now: float) -> bool:
        """Return whether an attempt may start now."""
        if self.open_until is None:
            return now >= self.rest_until
        return now >= self.open_until and not self.probing

    def started(self) -> None:
        """Note that an attempt starts."""
        if self.open_until is not None:
            self.probing = True

    def withdrawn(self, began: float) -> None:
        """Note that an attempt that started at `began` was withdrawn: if it was the probe, another probe may start."""
        if self.open_until is not None and began >= self.open_until:
            self.probing = False

    def succeeded(self, now: float) -> None:
        """Note a success. It closes the breaker, unless it comes before a probe may start: that attempt began before the breaker opened."""
        self.failures = 0
        if self.open_until is None:
            self.openings = 0
            self.rate.note(now, failed=False)
        elif now >= self.open_until:
            self.closed_at = now
            self.openings = 0
            self.open_until, self.probing = None, False

    def failed(self, now: float, chance: float) -> bool:
        """Note a failure; return whether the breaker opens now. `chance` is uniform in [0, 1)."""
        self.failures += 1
        # An attempt that was under way when the breaker opened does not open it again.
        if self.open_until is not None and not self.probing:
            return False
        if self.open_until is None:
            self.rate.note(now, failed=True)
            if self.failures < FAILURES_MAX and not self.rate.reached(now, _RATE_MAX, RATE_ATTEMPTS_MIN):
                return False
            if self.closed_at is not None and now < self.closed_at + self.open_first_s:
                self.rest_until = self.closed_at + self.open_first_s
                return False
        wait_s = self.open_first_s * min(2 ** min(self.openings, _DOUBLINGS_MAX), _OPEN_MAX) * (1 + _JITTER * chance)
        self.openings += 1
        self.open_until, self.probing = now + wait_s, False
        self.rate.clear()
        return True
