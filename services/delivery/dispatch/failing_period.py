"""Failing period: since when a sink fails without a success in between, and whether it has failed for too long.

dispatcher → sink_health → [failing_period] → transition_reports

Law 1: pure; time arrives as an argument, in ms by the due clock, which no jump of the wall clock moves.
Law 2: only time in which attempts were made counts. After `IDLE_MAX_MS` without an attempt, for instance in a pause, a new period begins.
"""

from dataclasses import dataclass

# Longer than the longest wait of the default retry policy, which is 24 h ± 50 %.
IDLE_MAX_MS = 48 * 3_600_000
# A subscription with few events may fail as rarely as once a day: so few failures do not prove that its sink is dead.
FAILURES_MIN = 10


@dataclass(slots=True)
class FailingPeriod:
    """The failures of a sink since its last success."""

    since_ms: int = 0
    """When the first of them was; 0 before any failure."""
    last_ms: int = 0
    """When the last of them was."""
    failures: int = 0

    def failed(self, now_ms: int) -> None:
        """Note a failure."""
        if not self.failures or now_ms - self.last_ms > IDLE_MAX_MS:
            self.since_ms, self.failures = now_ms, 0
        self.last_ms = now_ms
        self.failures += 1

    def succeeded(self) -> None:
        """Note a success, which ends the period."""
        self.since_ms = self.last_ms = self.failures = 0

    def is_too_long(self, duration_max_ms: int) -> bool:
        """Return whether the failures, from the first to the last, span at least a duration."""
        return self.failures >= FAILURES_MIN and self.last_ms - self.since_ms >= duration_max_ms
