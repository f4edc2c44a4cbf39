from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from services.delivery.dispatch.circuit_breaker import FAILURES_MAX, CircuitBreaker
from services.delivery.dispatch.lane_record import Now, health_of, row_of
from services.delivery.dispatch.sink_health import SinkHealth
from services.delivery.ledger.rows import LaneRow
from services.delivery.request.credentials import AccessToken
from services.delivery.request.request_settings import RequestSettings

SETTINGS = RequestSettings(sink_revision=3)
BEFORE = Now(1000.0, 5_000_000, 1_900_000_000_000)
# The next process: another monotonic clock, a minute later, and the wall clock has jumped back by an hour.
AFTER = Now(7.0, 5_060_000, 1_899_996_460_000)


def failed(times: int, status: int = 500, retry_after_s: float | None = None) -> SinkHealth:
    """Return the health of a sink after so many failures at `BEFORE`."""
    health = SinkHealth(3, CircuitBreaker(30.0))
    for _ in range(times):
        health.failed(status, retry_after_s, BEFORE.monotonic_s, 0.0)
        health.failing.failed(BEFORE.due_ms - 1000)
    return health


def test_a_sink_with_a_few_failures_costs_no_row() -> None:
    assert row_of("sub_1", None, BEFORE) is None
    assert row_of("sub_1", failed(FAILURES_MAX - 1), BEFORE) is None


def test_an_open_breaker_stays_open_until_the_same_time_after_a_restart() -> None:
    row = row_of("sub_1", failed(FAILURES_MAX), BEFORE)
    assert row is not None
    restored = health_of(row, SETTINGS, 30.0, AFTER)
    assert restored is not None
    assert restored.is_open
    assert restored.breaker.open_until == AFTER.monotonic_s - 30.0  # it was to open 30 s later, and a minute has passed
    assert (restored.breaker.openings, restored.breaker.failures) == (1, FAILURES_MAX)
    assert restored.permits(AFTER.monotonic_s)
    restored.breaker.started()
    assert restored.breaker.failed(AFTER.monotonic_s, 0.0), "the probe fails, and the wait doubles"
    assert restored.breaker.open_until == AFTER.monotonic_s + 60.0


def test_a_failing_period_goes_on_and_is_not_told_again() -> None:
    row = row_of("sub_1", failed(FAILURES_MAX), BEFORE)
    assert row is not None
    restored = health_of(row, SETTINGS, 30.0, AFTER)
    assert restored is not None
    assert restored.failing.since_ms == BEFORE.due_ms - 1000
    assert restored.told_failing_since_ms == AFTER.unix_ms - 61_000
    restored.failing.failed(AFTER.due_ms)
    assert (restored.failing.since_ms, restored.failing.failures) == (BEFORE.due_ms - 1000, FAILURES_MAX + 1)


def test_a_pause_that_the_sink_has_asked_for_is_kept() -> None:
    health = failed(1, 503, 120.0)
    row = row_of("sub_1", health, BEFORE)
    assert row is not None
    restored = health_of(row, SETTINGS, 30.0, AFTER)
    assert restored is not None
    assert not restored.is_open
    assert restored.paused_until == AFTER.monotonic_s + 60.0
    assert row_of("sub_1", health, Now(1121.0, 0, 0)) is None


def test_a_row_of_a_former_sink_does_not_bind_the_next() -> None:
    row = row_of("sub_1", failed(FAILURES_MAX), BEFORE)
    assert row is not None
    assert health_of(row, RequestSettings(sink_revision=4), 30.0, AFTER) is None
    assert health_of(row, replace(SETTINGS, credential=AccessToken("secret", "bearer")), 30.0, AFTER) is None


@given(st.floats(0, 1e6), st.integers(1, 2**40), st.integers(-(10**6), 10**6))
def test_times_keep_their_distance_over_both_clocks(monotonic_s: float, due_ms: int, distance_ms: int) -> None:
    now = Now(monotonic_s, due_ms, 0)
    assert abs(now.due_at(now.monotonic_at(due_ms + distance_ms)) - (due_ms + distance_ms)) <= 1


def test_a_row_has_all_that_a_lane_must_not_forget() -> None:
    """Of an open breaker, of a pause, and of both."""
    until_ms, retry_ms = BEFORE.due_ms + 30_000, BEFORE.due_ms + 120_000
    counted = FAILURES_MAX, BEFORE.due_ms - 1000, 0.0
    assert row_of("sub_1", failed(FAILURES_MAX), BEFORE) == LaneRow("sub_1", 3 << 16, until_ms, 1, 0, *counted)
    assert row_of("sub_1", failed(1, 429, 120.0), BEFORE) == LaneRow("sub_1", 3 << 16, 0, 0, retry_ms, 1, BEFORE.due_ms - 1000, 0.0)
    assert row_of("sub_1", failed(FAILURES_MAX, 429, 120.0), BEFORE) == LaneRow("sub_1", 3 << 16, until_ms, 1, retry_ms, *counted)
    health = failed(1)
    health.paused_until = BEFORE.monotonic_s
    assert row_of("sub_1", health, BEFORE) is None


def test_a_restored_sink_has_its_credential_and_the_first_wait_of_the_present_settings() -> None:
    token = AccessToken("secret", "bearer")
    health = failed(FAILURES_MAX)
    health.credential = token
    row = row_of("sub_1", health, BEFORE)
    assert row is not None
    restored = health_of(row, replace(SETTINGS, credential=token), 7.0, AFTER)
    assert restored is not None
    assert (restored.sink_revision, restored.credential, restored.breaker.open_first_s) == (3, token, 7.0)
    assert restored.paused_until == 0.0
    assert (restored.failing.failures, restored.failing.since_ms) == (FAILURES_MAX, BEFORE.due_ms - 1000)
