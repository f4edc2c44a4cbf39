import pytest

from services.delivery.dispatch.failing_period import FAILURES_MIN, IDLE_MAX_MS, FailingPeriod

HOUR_MS = 3_600_000
FIVE_DAYS_MS = 120 * HOUR_MS


def failed_every(hours: float, count: int, start_ms: int = 1) -> FailingPeriod:
    period = FailingPeriod()
    for number in range(count):
        period.failed(start_ms + int(number * hours * HOUR_MS))
    return period


@pytest.mark.parametrize(
    ("hours", "count", "too_long"),
    [(12, 11, True), (12, 10, False), (1, 121, True), (1, 120, False), (24, 6, False), (24, FAILURES_MIN, True), (0, 1000, False)],
)
def test_a_sink_has_failed_for_too_long_after_many_failures_over_five_days(hours: float, count: int, too_long: bool) -> None:  # noqa: FBT001 - a parameter of the test
    assert failed_every(hours, count).is_too_long(FIVE_DAYS_MS) is too_long


def test_a_success_begins_a_new_period() -> None:
    period = failed_every(12, 11)
    period.succeeded()
    assert period == FailingPeriod()
    period.failed(500 * HOUR_MS)
    assert (period.since_ms, period.failures) == (500 * HOUR_MS, 1)


def test_time_without_attempts_does_not_count() -> None:
    """A pause of a month is no month of failures, and the waits of the retry policy are no pause."""
    period = failed_every(1, 100)
    last_ms = period.last_ms
    period.failed(last_ms + IDLE_MAX_MS)
    assert period.failures == 101
    later_ms = period.last_ms + IDLE_MAX_MS + 1
    period.failed(later_ms)
    assert (period.since_ms, period.failures, period.is_too_long(FIVE_DAYS_MS)) == (later_ms, 1, False)
