from hypothesis import given
from hypothesis import strategies as st

from services.delivery.dispatch.circuit_breaker import FAILURES_MAX, Breaker
from services.delivery.dispatch.sink_health import Trouble, Verdict

HOUR_S = 3600.0
NOTHING = Verdict(is_gone=False, opens=False, pauses=False)


def trouble() -> Trouble:
    return Trouble(1, Breaker(30.0))


def test_one_failure_spares_nothing() -> None:
    one = trouble()

    assert one.failed(500, None, 10.0, 0.5) == NOTHING
    assert one.permits(10.0)
    assert one.spared_until(10.0) is None


def test_a_pause_is_as_long_as_it_is_asked_for() -> None:
    one = trouble()

    assert one.failed(429, 100.0, 10.0, 0.5) == Verdict(is_gone=False, opens=False, pauses=True)
    assert not one.permits(109.9)
    assert one.permits(110.0)
    assert one.spared_until(10.0) == 110.0


def test_the_longest_of_several_pauses_counts_and_begins_once() -> None:
    one = trouble()

    verdicts = [one.failed(503, wait_s, 10.0, 0.5) for wait_s in (5.0, 50.0, 20.0)]

    assert [verdict.pauses for verdict in verdicts] == [True, False, False]
    assert one.paused_until == 60.0


def test_a_pause_of_no_length_doubles_each_time_up_to_half_a_minute_until_a_success() -> None:
    """Several failures of attempts that were under way together count once."""
    one, now, waits = trouble(), 0.0, []
    for number in range(7):
        if number == 6:
            one.succeeded(now)
        for _ in range(3):
            one.failed(429, None, now, 0.5)
        waits.append(one.paused_until - now)
        now = one.paused_until

    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 1.0]


def test_a_wait_that_comes_with_another_status_is_its_deliverys_alone() -> None:
    one = trouble()

    assert one.failed(500, 100.0, 10.0, 0.5) == NOTHING
    assert one.permits(10.0)


def test_a_sink_that_is_gone_is_told_of_once_an_hour() -> None:
    one = trouble()

    told = [one.failed(410, None, now, 0.5).is_gone for now in (0.0, 1.0, HOUR_S - 1, HOUR_S, HOUR_S + 1)]

    assert told == [True, False, False, True, False]
    assert not one.permits(2 * HOUR_S - 1)
    assert one.permits(2 * HOUR_S)


def test_one_that_is_gone_is_told_of_though_it_has_asked_for_a_pause() -> None:
    one = trouble()
    one.failed(429, 100.0, 0.0, 0.5)

    assert one.failed(410, None, 1.0, 0.5).is_gone


def test_failures_in_a_row_open_its_breaker() -> None:
    one = trouble()

    assert [one.failed(500, None, 0.0, 0.0).opens for _ in range(FAILURES_MAX)] == [False] * (FAILURES_MAX - 1) + [True]
    assert one.is_open
    assert one.spared_until(0.0) == 30.0
    assert one.over_at is None


STEPS = st.tuples(
    st.sampled_from(["ok", "fail", "wait"]), st.sampled_from([500, 429, 410]), st.none() | st.floats(0, 100), st.floats(0, 100)
)


@given(st.lists(STEPS, max_size=60))
def test_once_it_is_over_it_permits_as_one_that_never_was(history: list[tuple[str, int, float | None, float]]) -> None:
    """If no attempt is permitted, there is a time at which one is."""
    one, now = trouble(), 0.0
    for what, status, wait_s, passed_s in history:
        if what == "wait":
            now += passed_s
        elif one.permits(now):
            one.breaker.started()
            if what == "ok":
                one.succeeded(now)
            else:
                one.failed(status, wait_s, now, 0.5)
        assert one.permits(now) or one.spared_until(now) is not None
        if one.over_at is not None and one.over_at <= now:
            assert one.permits(now)
            assert one.breaker.failures == 0
