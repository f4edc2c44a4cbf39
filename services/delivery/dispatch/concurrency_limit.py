"""Concurrency limit: how many attempts of a lane may be under way at once; it follows what the sink can take.

dispatcher → [concurrency_limit] → attempt_scheduler

Additive increase, multiplicative decrease, as TCP's congestion control does it (RFC 5681): a sink's first window doubles until the sink is
overloaded for the first time, so that a fast sink gets its full rate within a few round trips.

Law 1: pure; time (seconds of the monotonic clock) arrives as an argument.
Law 2: the limit grows only by successes of attempts that were under way while the limit was reached: an idle lane proves nothing.
Law 3: the attempts that were under way together cut the limit once.
"""

from dataclasses import dataclass

LIMIT_FIRST = 4
LIMIT_MAX = 256
# How long a limit is remembered after it was last in use.
_KEPT_S = 60.0


@dataclass(slots=True)
class ConcurrencyLimit:
    """The limit of one lane."""

    limit: int = LIMIT_FIRST
    """How many attempts may be under way at once."""
    doubles_below: int = LIMIT_MAX
    """Below this limit each success adds one, so that the limit doubles in a window; from there on a whole window of successes adds one."""
    successes: int = 0
    """How many successes there were in the present window; counted only from `doubles_below` on."""
    to_count: int = 0
    """How many of the next successes count, because as many attempts were under way when the limit was last reached."""
    cut_at: float = float("-inf")
    """When the limit was last cut."""
    used_at: float = float("-inf")
    """When a success last counted, or the limit was cut."""

    def reached(self) -> None:
        """Note that as many attempts are under way as the limit permits."""
        self.to_count = self.limit

    def succeeded(self, now: float) -> None:
        """Note a success that counts; the caller leaves the call out while `to_count` is 0."""
        self.to_count -= 1
        self.used_at = now
        if self.limit >= LIMIT_MAX:
            return
        if self.limit >= self.doubles_below:
            self.successes += 1
            if self.successes < self.limit:
                return
            self.successes = 0
        self.limit += 1

    def overloaded(self, began: float, now: float) -> None:
        """Note that the sink could not take an attempt that began at `began`: halve the limit, unless a cut has come since then."""
        if began <= self.cut_at:
            return
        self.limit = max(1, self.limit // 2)
        self.doubles_below, self.successes, self.to_count = self.limit, 0, 0
        self.cut_at = self.used_at = now

    def restart(self, now: float) -> None:
        """Begin again with one attempt, because the circuit breaker opens; double up to half of the former limit, then grow slowly."""
        self.doubles_below, self.successes, self.to_count = max(LIMIT_FIRST, self.limit // 2), 0, 0
        self.limit = 1
        self.cut_at = self.used_at = now

    @property
    def expires_at(self) -> float:
        """When a new limit may take its place; minus infinity if it is like a new one."""
        return float("-inf") if self.limit == LIMIT_FIRST and self.doubles_below == LIMIT_MAX else self.used_at + _KEPT_S
