"""Concurrency limit: it grows while a sink copes, halves when a sink is overloaded, and stays within its bounds."""

from hypothesis import given
from hypothesis import strategies as st

from services.delivery.dispatch.concurrency_limit import LIMIT_FIRST, LIMIT_MAX, ConcurrencyLimit


def windows(limit: ConcurrencyLimit, count: int, now: float = 0.0) -> list[int]:
    """Fill the limit `count` times, let all attempts succeed each time, and return the limit after each window."""
    after = []
    for _ in range(count):
        limit.reached()
        while limit.to_count:
            limit.succeeded(now)
        after.append(limit.limit)
    return after


def test_a_new_sink_s_limit_doubles_with_each_window_up_to_the_maximum() -> None:
    assert windows(ConcurrencyLimit(), 7) == [8, 16, 32, 64, 128, LIMIT_MAX, LIMIT_MAX]


def test_after_a_cut_each_window_adds_one() -> None:
    limit = ConcurrencyLimit(limit=32)
    limit.overloaded(began=1.0, now=2.0)
    assert windows(limit, 3) == [17, 18, 19]


def test_attempts_that_were_under_way_together_cut_once() -> None:
    limit = ConcurrencyLimit(limit=64)
    for _ in range(64):
        limit.overloaded(began=1.0, now=2.0)
    assert limit.limit == 32
    limit.overloaded(began=2.5, now=3.0)
    assert limit.limit == 16


def test_it_never_falls_below_one() -> None:
    limit = ConcurrencyLimit()
    for time in range(10):
        limit.overloaded(began=time + 0.5, now=time + 1.0)
    assert limit.limit == 1
    assert windows(limit, 2) == [2, 3]


def test_after_an_outage_it_doubles_from_one_to_half_of_what_it_was() -> None:
    limit = ConcurrencyLimit(limit=64)
    limit.restart(10.0)
    assert limit.limit == 1
    assert windows(limit, 7) == [2, 4, 8, 16, 32, 33, 34]


def test_a_short_outage_after_another_leaves_a_first_window_at_least() -> None:
    limit = ConcurrencyLimit(limit=64)
    limit.restart(10.0)
    limit.restart(20.0)
    assert windows(limit, 3) == [2, 4, 5]


def test_a_limit_that_is_like_a_new_one_need_not_be_kept_and_any_other_is_kept_for_a_minute() -> None:
    limit = ConcurrencyLimit()
    assert limit.expires_at == float("-inf")
    windows(limit, 1, now=5.0)
    assert limit.expires_at == 65.0
    limit.overloaded(began=6.0, now=7.0)
    assert (limit.limit, limit.expires_at) == (LIMIT_FIRST, 67.0)


@given(st.lists(st.tuples(st.sampled_from(["reached", "ok", "overloaded", "opens"]), st.floats(0, 5), st.floats(0, 5)), max_size=400))
def test_it_stays_within_its_bounds_and_grows_only_by_successes_that_count(history: list[tuple[str, float, float]]) -> None:
    limit, now = ConcurrencyLimit(), 0.0
    for what, passed_s, lasted_s in history:
        now += passed_s
        before = limit.limit
        match what:
            case "reached":
                limit.reached()
            case "ok" if limit.to_count:
                limit.succeeded(now)
                assert before <= limit.limit <= before + 1
            case "overloaded":
                limit.overloaded(now - lasted_s, now)
                assert limit.limit in {before, max(1, before // 2)}
            case "opens":
                limit.restart(now)
                assert limit.limit == 1
        assert 1 <= limit.limit <= LIMIT_MAX
        assert 0 <= limit.to_count <= LIMIT_MAX


def state(limit: ConcurrencyLimit) -> tuple[float, ...]:
    """Return all that a limit keeps."""
    return limit.limit, limit.doubles_below, limit.successes, limit.to_count, limit.cut_at, limit.used_at


def test_a_cut_begins_a_new_window_and_nothing_that_began_before_it_counts() -> None:
    limit = ConcurrencyLimit(limit=32, doubles_below=40, successes=5, to_count=7)
    limit.overloaded(began=1.0, now=2.0)
    assert state(limit) == (16, 16, 0, 0, 2.0, 2.0)
    limit.overloaded(began=2.0, now=3.0)
    assert state(limit) == (16, 16, 0, 0, 2.0, 2.0)


def test_an_outage_begins_a_new_window_and_cuts_whatever_began_before_it() -> None:
    limit = ConcurrencyLimit(limit=64, successes=5, to_count=7)
    limit.restart(10.0)
    assert state(limit) == (1, 32, 0, 0, 10.0, 10.0)
    limit.overloaded(began=10.0, now=11.0)
    assert state(limit) == (1, 32, 0, 0, 10.0, 10.0)
    small = ConcurrencyLimit(limit=3)
    small.restart(10.0)
    assert small.doubles_below == LIMIT_FIRST


def test_each_success_counts_once_and_a_whole_window_adds_one() -> None:
    limit = ConcurrencyLimit(limit=2, doubles_below=2, to_count=6)
    seen = []
    for second in range(5):
        limit.succeeded(float(second))
        seen.append(state(limit)[:4] + state(limit)[5:])
    assert seen == [(2, 2, 1, 5, 0.0), (3, 2, 0, 4, 1.0), (3, 2, 1, 3, 2.0), (3, 2, 2, 2, 3.0), (4, 2, 0, 1, 4.0)]


def test_a_limit_at_its_maximum_counts_no_window() -> None:
    limit = ConcurrencyLimit(limit=LIMIT_MAX, doubles_below=16, to_count=1)
    limit.succeeded(1.0)
    assert state(limit)[:4] == (LIMIT_MAX, 16, 0, 0)
