import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.delivery.breaker import FAILURES_MAX, Breaker


def opened(*, times: int = 1) -> tuple[Breaker, float]:
    """Return a breaker that has opened so often, probe after failed probe, and the time by then."""
    breaker, now = Breaker(30.0), 0.0
    for _ in range(FAILURES_MAX):
        breaker.failed(now, 0.5)
    for _ in range(times - 1):
        assert breaker.open_until is not None
        now = breaker.open_until
        breaker.started()
        assert breaker.failed(now, 0.5)
    return breaker, now


def test_it_opens_at_the_tenth_failure_in_a_row() -> None:
    breaker = Breaker(30.0)
    assert [breaker.failed(0.0, 0.5) for _ in range(FAILURES_MAX)] == [False] * 9 + [True]
    assert not breaker.permits(29.9)
    assert breaker.permits(30.0)


def test_a_success_between_begins_the_count_anew() -> None:
    breaker = Breaker(30.0)
    for _ in range(FAILURES_MAX - 1):
        breaker.failed(0.0, 0.5)
    breaker.succeeded()
    assert not any(breaker.failed(0.0, 0.5) for _ in range(FAILURES_MAX - 1))


def test_one_probe_at_a_time_is_let_through() -> None:
    breaker, _ = opened()
    assert breaker.permits(30.0)
    breaker.started()
    assert not breaker.permits(30.0)
    assert not breaker.permits(1e9)


def test_a_probe_that_succeeds_closes_it() -> None:
    breaker, _ = opened()
    breaker.started()
    breaker.succeeded()
    assert breaker == Breaker(30.0)


@pytest.mark.parametrize(("times", "open_s"), [(1, 30.0), (2, 60.0), (3, 120.0), (5, 480.0), (6, 600.0), (7, 600.0), (5000, 600.0)])
def test_each_failed_probe_doubles_the_time_up_to_ten_minutes(times: int, open_s: float) -> None:
    """Also for an endpoint that has been away for months."""
    breaker, now = opened(times=times)
    assert breaker.open_until == pytest.approx(now + open_s)


@given(st.floats(0, 1, exclude_max=True))
def test_the_time_is_jittered_by_a_fifth(chance: float) -> None:
    breaker = Breaker(30.0)
    for _ in range(FAILURES_MAX):
        breaker.failed(100.0, chance)
    assert breaker.open_until is not None
    assert 124.0 <= breaker.open_until <= 136.0


def test_what_was_under_way_when_it_opened_does_not_open_it_again() -> None:
    breaker, _ = opened()
    open_until = breaker.open_until
    assert not breaker.failed(5.0, 0.5)
    assert breaker.open_until == open_until


def test_what_was_under_way_when_it_opened_and_succeeds_closes_it() -> None:
    breaker, _ = opened()
    breaker.succeeded()
    assert breaker.permits(5.0)


@given(st.lists(st.tuples(st.sampled_from(["start", "ok", "fail", "wait"]), st.floats(0, 100)), max_size=200))
def test_whatever_happens_it_permits_again_in_the_end(history: list[tuple[str, float]]) -> None:
    """An open breaker with no probe under way permits one after its time, which is never more than twelve minutes away."""
    breaker, now, under_way = Breaker(30.0), 0.0, 0
    for what, amount in history:
        if what == "start" and breaker.permits(now):
            breaker.started()
            under_way += 1
        elif what == "ok" and under_way:
            breaker.succeeded()
            under_way -= 1
        elif what == "fail" and under_way:
            breaker.failed(now, amount / 101)
            under_way -= 1
        elif what == "wait":
            now += amount
    for _ in range(under_way):
        breaker.failed(now, 0.5)
    assert breaker.permits(now + 720.0)
