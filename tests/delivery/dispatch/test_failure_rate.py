"""Failure rate: it counts the attempts of the last minute, and no others."""

from hypothesis import given
from hypothesis import strategies as st

from services.delivery.dispatch.failure_rate import WINDOW_S, FailureRate


def test_half_of_enough_attempts_reach_a_share_of_a_half() -> None:
    rate = FailureRate()
    for number in range(19):
        rate.note(0.0, failed=number % 2 == 0)
    assert not rate.reached(0.0, 0.5, 20)
    rate.note(0.0, failed=False)
    assert rate.reached(0.0, 0.5, 20)
    rate.note(0.0, failed=False)
    assert not rate.reached(0.0, 0.5, 20)


def test_attempts_count_for_a_minute() -> None:
    rate = FailureRate()
    for _ in range(20):
        rate.note(109.0, failed=True)
    assert rate.reached(159.9, 0.5, 20)
    assert rate.expires_at == 160.0
    assert not rate.reached(160.0, 0.5, 20)
    assert rate.expires_at == float("-inf")


def test_what_is_cleared_counts_no_more() -> None:
    rate = FailureRate()
    rate.note(5.0, failed=True)
    rate.clear()
    assert not rate.reached(5.0, 0.0, 1)
    assert rate.expires_at == float("-inf")


@given(st.lists(st.tuples(st.floats(0, 40), st.booleans()), min_size=1, max_size=100))
def test_it_counts_all_attempts_of_the_last_fifty_seconds_and_none_older_than_sixty(history: list[tuple[float, bool]]) -> None:
    rate, now, ended = FailureRate(), 0.0, list[tuple[float, bool]]()
    for passed_s, failed in history:
        now += passed_s
        rate.note(now, failed=failed)
        ended.append((now, failed))
        recent = sum(at > now - WINDOW_S + 10 for at, _ in ended)
        within = sum(at > now - WINDOW_S for at, _ in ended)
        assert recent <= sum(rate.ended) <= within
        assert sum(rate.failed) <= sum(failed for at, failed in ended if at > now - WINDOW_S)
