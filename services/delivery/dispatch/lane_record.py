"""Lane record: what a lane must not forget at a restart, as the ledger keeps it: its open breaker, its pause, and since when it fails.

dispatcher → sink_health → [lane_record] → recorder → ledger; ledger → [lane_record] → dispatcher

Law 1: pure; time arrives as an argument.
Law 2: stored times are in ms by the due clock, which no jump of the wall clock moves, also not from one process to the next.
Law 3: a lane that would act the same without its record has none: a healthy sink, and one with a few failures, costs no row.
"""

from dataclasses import dataclass

from services.delivery.dispatch.circuit_breaker import CircuitBreaker
from services.delivery.dispatch.failing_period import FailingPeriod
from services.delivery.dispatch.sink_health import SinkHealth
from services.delivery.ledger.rows import LaneRow
from services.delivery.request.request_settings import RequestSettings
from services.delivery.request.sink_fingerprint import sink_fingerprint


@dataclass(frozen=True, slots=True)
class Now:
    """The present time by the clocks of a lane."""

    monotonic_s: float
    due_ms: int
    unix_ms: int

    def due_at(self, at_s: float) -> int:
        """Return a time of the monotonic clock by the due clock."""
        return self.due_ms + int((at_s - self.monotonic_s) * 1000)

    def monotonic_at(self, due_ms: int) -> float:
        """Return a time of the due clock by the monotonic clock."""
        return self.monotonic_s + (due_ms - self.due_ms) / 1000


def row_of(subscription_id: str, health: SinkHealth | None, now: Now) -> LaneRow | None:
    """Return the row of a lane whose sink has this health; None if there is nothing to keep."""
    if health is None:
        return None
    breaker, paused = health.breaker, health.paused_until > now.monotonic_s
    if breaker.open_until is None and not paused:
        return None
    return LaneRow(
        subscription_id=subscription_id,
        sink=sink_fingerprint(health.sink_revision, health.credential),
        opens_until_ms=0 if breaker.open_until is None else now.due_at(breaker.open_until),
        breaker_level=breaker.openings,
        retry_after_ms=now.due_at(health.paused_until) if paused else 0,
        failures=health.failing.failures,
        failing_since_ms=health.failing.since_ms,
        granted_rate=0.0,
    )


def health_of(row: LaneRow, settings: RequestSettings, breaker_first_s: float, now: Now) -> SinkHealth | None:
    """Return the health of a lane's sink from its row; None if the subscription has another sink or another credential by now."""
    if settings.sink_fingerprint != row.sink:
        return None
    breaker = CircuitBreaker(breaker_first_s)
    health = SinkHealth(settings.sink_revision, breaker, settings.credential)
    if row.opens_until_ms:
        breaker.openings, breaker.failures = row.breaker_level, row.failures
        breaker.open_until = now.monotonic_at(row.opens_until_ms)
        # The last failure opened the breaker, so it was at most one of its waits earlier. A longer stop of the process counts as idle.
        health.failing = FailingPeriod(row.failing_since_ms, row.opens_until_ms, row.failures)
        health.told_failing_since_ms = now.unix_ms - (now.due_ms - row.failing_since_ms)
    if row.retry_after_ms:
        health.paused_until = now.monotonic_at(row.retry_after_ms)
    return health
