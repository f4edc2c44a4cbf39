import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.delivery.dispatch.circuit_breaker import FAILURES_MAX, RATE_ATTEMPTS_MIN, CircuitBreaker


def opened(*, times: int = 1) -> tuple[CircuitBreaker, float]:
    """Return a breaker that has opened `times` times, with a failed probe between, and the time of the last failure."""
    breaker, now = CircuitBreaker(30.0), 0.0
    for _ in range(FAILURES_MAX):
        breaker.failed(now, 0.0)
    for _ in range(times - 1):
        assert breaker.open_until is not None
        now = breaker.open_until
        breaker.started()
        assert breaker.failed(now, 0.0)
    return breaker, now


def test_it_opens_at_the_tenth_failure_in_a_row() -> None:
    breaker = CircuitBreaker(30.0)
    assert [breaker.failed(0.0, 0.0) for _ in range(FAILURES_MAX)] == [False] * 9 + [True]
    assert not breaker.permits(29.9)
    assert breaker.permits(30.0)


def test_a_success_between_begins_the_count_anew() -> None:
    breaker = CircuitBreaker(30.0)
    for _ in range(FAILURES_MAX - 1):
        breaker.failed(0.0, 0.5)
    breaker.succeeded(0.0)
    assert not any(breaker.failed(0.0, 0.5) for _ in range(FAILURES_MAX - 1))


def test_it_opens_if_half_of_twenty_attempts_in_a_minute_fail() -> None:
    breaker = CircuitBreaker(30.0)
    for number in range(RATE_ATTEMPTS_MIN - 2):
        if number % 2:
            breaker.succeeded(1.0)
        else:
            assert not breaker.failed(1.0, 0.0)
    breaker.succeeded(2.0)
    assert breaker.failed(2.0, 0.0)
    assert breaker.open_until == 32.0


def test_fewer_than_half_leave_it_closed() -> None:
    breaker = CircuitBreaker(30.0)
    for number in range(300):
        if number % 5 < 3:
            breaker.succeeded(number / 10)
        else:
            assert not breaker.failed(number / 10, 0.0)


def test_failures_from_before_it_opened_do_not_open_it_again_after_it_has_closed() -> None:
    breaker, _ = opened()
    breaker.started()
    breaker.succeeded(59.0)
    for _ in range(RATE_ATTEMPTS_MIN):
        breaker.succeeded(59.0)
    assert not breaker.failed(59.0, 0.0)
    assert breaker.permits(59.0)


def test_it_is_remembered_for_as_long_as_its_failures_count() -> None:
    breaker = CircuitBreaker(30.0)
    breaker.failed(5.0, 0.0)
    assert breaker.expires_at is None
    breaker.succeeded(6.0)
    assert breaker.expires_at == 60.0


def test_one_probe_at_a_time_is_let_through() -> None:
    breaker, _ = opened()
    assert breaker.permits(30.0)
    breaker.started()
    assert not breaker.permits(30.0)
    assert not breaker.permits(1e9)


def test_after_a_probe_is_withdrawn_another_may_start() -> None:
    breaker, _ = opened()
    breaker.started()
    breaker.withdrawn(30.0)
    assert breaker.permits(30.0)


def test_an_older_attempt_that_is_withdrawn_was_not_the_probe() -> None:
    breaker, _ = opened()
    breaker.started()
    breaker.withdrawn(29.0)
    assert not breaker.permits(30.0)


def test_a_probe_that_succeeds_closes_it() -> None:
    breaker, _ = opened()
    breaker.started()
    breaker.succeeded(30.0)
    assert breaker == CircuitBreaker(30.0, closed_at=30.0)
    assert breaker.expires_at == 60.0


@pytest.mark.parametrize(("times", "open_s"), [(1, 30.0), (2, 60.0), (3, 120.0), (5, 480.0), (6, 600.0), (7, 600.0), (5000, 600.0)])
def test_each_failed_probe_doubles_the_time_up_to_twenty_times(times: int, open_s: float) -> None:
    """The limit also holds for an endpoint that has been down for months."""
    breaker, now = opened(times=times)
    assert breaker.open_until == pytest.approx(now + open_s)


@given(st.floats(0, 1, exclude_max=True))
def test_the_time_is_longer_by_up_to_a_fifth(chance: float) -> None:
    breaker = CircuitBreaker(30.0)
    for _ in range(FAILURES_MAX):
        breaker.failed(100.0, chance)
    assert breaker.open_until is not None
    assert 130.0 <= breaker.open_until <= 136.0


def test_what_was_under_way_when_it_opened_does_not_open_it_again() -> None:
    breaker, _ = opened()
    open_until = breaker.open_until
    assert not breaker.failed(5.0, 0.5)
    assert breaker.open_until == open_until


def test_what_was_under_way_when_it_opened_and_succeeds_does_not_close_it() -> None:
    """Otherwise an endpoint that answers only now and then would get requests at full speed all the time."""
    breaker, _ = opened()
    breaker.succeeded(5.0)
    assert not breaker.permits(29.9)
    assert breaker.permits(30.0)


def test_an_endpoint_that_fails_again_at_once_rests_before_it_opens_again() -> None:
    breaker, _ = opened()
    breaker.started()
    breaker.succeeded(31.0)
    assert not any(breaker.failed(32.0, 0.0) for _ in range(3 * FAILURES_MAX))
    assert breaker.open_until is None
    assert not breaker.permits(60.9)
    assert breaker.permits(61.0)
    assert breaker.failed(61.0, 0.0)


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 3)), max_size=300), st.integers(1, 64))
def test_however_an_endpoint_flaps_it_changes_at_most_once_in_thirty_seconds(history: list[tuple[bool, float]], at_once: int) -> None:
    """As many attempts are under way as the breaker permits, and each may succeed or fail."""
    breaker, now, under_way = CircuitBreaker(30.0), 0.0, 0
    changes = [0.0]
    for succeeds, wait_s in history:
        now += wait_s
        while under_way < at_once and breaker.permits(now):
            breaker.started()
            under_way += 1
        if not under_way:
            continue
        was_open = breaker.open_until is not None
        if succeeds:
            breaker.succeeded(now)
        else:
            breaker.failed(now, 0.0)
        under_way -= 1
        if (breaker.open_until is not None) != was_open:
            changes.append(now)
    assert all(later - earlier >= 30.0 for earlier, later in itertools.pairwise(changes[1:]))


@given(st.lists(st.tuples(st.sampled_from(["start", "ok", "fail", "wait"]), st.floats(0, 100)), max_size=200))
def test_whatever_happens_it_permits_again_in_the_end(history: list[tuple[str, float]]) -> None:
    """An open breaker with no probe under way permits one after its time, which is at most twelve minutes away."""
    breaker, now, under_way = CircuitBreaker(30.0), 0.0, 0
    for what, amount in history:
        if what == "start" and breaker.permits(now):
            breaker.started()
            under_way += 1
        elif what == "ok" and under_way:
            breaker.succeeded(now)
            under_way -= 1
        elif what == "fail" and under_way:
            breaker.failed(now, amount / 101)
            under_way -= 1
        elif what == "wait":
            now += amount
    for _ in range(under_way):
        breaker.failed(now, 0.5)
    assert breaker.permits(now + 720.0)


def test_after_the_probe_is_withdrawn_another_one_may_start() -> None:
    """An attempt that had begun before the breaker opened is no probe, so its withdrawal lets no further one start."""
    breaker = CircuitBreaker(30.0)
    while not breaker.failed(0.0, 0.0):
        pass
    opened_until = breaker.open_until
    assert opened_until == 30.0
    breaker.started()
    breaker.withdrawn(29.9)
    assert not breaker.permits(30.0)
    breaker.withdrawn(30.0)
    assert breaker.permits(30.0)
