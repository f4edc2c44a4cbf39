import email.utils

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.delivery.dispatch.retry_policy import (
    JITTER,
    LOOP_DETECTED,
    RETRY_AFTER_MAX_S,
    Exhausted,
    RetryAt,
    RetryPolicy,
    pause_s,
    retry_after_s,
    throttles,
)
from services.delivery.request.request_settings import OwnRetryPolicy

NOW_MS = 1_800_000_000_000
DAYS_14_S = 14 * 86400.0
chances = st.floats(0, 1, exclude_max=True)


@given(st.lists(st.floats(0.1, 86400), max_size=12), st.integers(1, 15), chances, st.none() | st.floats(0.001, RETRY_AFTER_MAX_S))
def test_a_failure_is_tried_again_as_often_as_there_are_delays(
    delays_s: list[float], attempts: int, chance: float, wait_s: float | None
) -> None:
    """Each retry waits for its own delay, plus or minus the jitter, and not less than the endpoint's Retry-After."""
    policy = RetryPolicy(delays_s, DAYS_14_S)
    decision = policy.after_failure(attempts=attempts, accepted_ms=NOW_MS, now_ms=NOW_MS, chance=chance, retry_after_s=wait_s)
    if attempts > len(delays_s):
        assert decision == Exhausted(f"all {attempts} attempts have failed")
        return
    assert isinstance(decision, RetryAt)
    waits_s = (decision.due_ms - NOW_MS) / 1000
    delay_s, asked_s = delays_s[attempts - 1], wait_s or 0.0
    assert max((1 - JITTER) * delay_s, asked_s) - 0.001 <= waits_s <= max((1 + JITTER) * delay_s, asked_s)


def test_a_webhook_that_came_back_to_hooktide_is_given_up_at_once() -> None:
    policy = RetryPolicy((100.0,), DAYS_14_S)
    decision = policy.after_failure(attempts=1, accepted_ms=NOW_MS, now_ms=NOW_MS, chance=0.5, status=LOOP_DETECTED)
    assert isinstance(decision, Exhausted)
    assert "came back to Hooktide" in decision.reason


@pytest.mark.parametrize(("times", "expected_s"), [(1, 1.0), (2, 2.0), (3, 4.0), (5, 16.0), (6, 30.0), (1000, 30.0)])
def test_a_pause_of_no_stated_length_doubles_up_to_half_a_minute(times: int, expected_s: float) -> None:
    assert pause_s(times) == expected_s


def test_a_failure_at_a_former_sink_counts_as_an_attempt_and_does_not_bind_the_next_one() -> None:
    policy = RetryPolicy((600.0,), DAYS_14_S)

    def after(attempts: int) -> object:
        return policy.after_failure(
            attempts=attempts, accepted_ms=NOW_MS, now_ms=NOW_MS, chance=0.5, retry_after_s=9.0, sink_has_changed=True
        )

    assert after(1) == RetryAt(NOW_MS)
    assert isinstance(after(2), Exhausted)


def test_what_would_be_tried_too_late_is_given_up() -> None:
    policy = RetryPolicy((100.0,), expiry_s=1000.0)

    def after(age_s: float) -> object:
        return policy.after_failure(attempts=1, accepted_ms=NOW_MS - int(age_s * 1000), now_ms=NOW_MS, chance=0.5)

    assert after(900.0) == RetryAt(NOW_MS + 100_000)
    assert after(900.1) == Exhausted("the delivery reached its expiry time")


def test_a_long_retry_after_can_outlast_the_time_there_is() -> None:
    policy = RetryPolicy((1.0,), expiry_s=3600.0)
    decision = policy.after_failure(attempts=1, accepted_ms=NOW_MS, now_ms=NOW_MS, chance=0.0, retry_after_s=3601.0)
    assert isinstance(decision, Exhausted)


@given(st.integers(1, 15), st.integers(1, 15), st.integers(0, 12), st.none() | st.lists(st.just(1.0), max_size=12).map(tuple))
def test_a_delivery_gets_no_more_attempts_than_its_subscription_permits(
    attempts: int, attempts_max: int, operators: int, own: tuple[float, ...] | None
) -> None:
    policy = RetryPolicy((1.0,) * operators, DAYS_14_S)
    retry = OwnRetryPolicy(delays_s=own, attempts_max=attempts_max)
    decision = policy.after_failure(attempts=attempts, accepted_ms=NOW_MS, now_ms=NOW_MS, chance=0.5, own=retry)
    permitted = min(attempts_max, (operators if own is None else len(own)) + 1)
    assert isinstance(decision, Exhausted) == (attempts >= permitted)


@pytest.mark.parametrize("status", [0, 300, 404, 405, 503])
def test_a_final_status_ends_the_attempts_at_once(status: int) -> None:
    own = OwnRetryPolicy(final_statuses=frozenset({404, 503}))
    decision = RetryPolicy((1.0,), DAYS_14_S).after_failure(
        attempts=1, accepted_ms=NOW_MS, now_ms=NOW_MS, chance=0.5, status=status, own=own
    )
    if status in own.final_statuses:
        assert decision == Exhausted(f"the sink answered {status}, which is one of the subscription's final statuses")
    else:
        assert isinstance(decision, RetryAt)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("120", 120.0),
        (" 7 ", 7.0),
        ("0", None),
        ("000", None),
        ("21600", 21600.0),
        ("21601", 21600.0),
        ("9" * 5000, 21600.0),
        ("1e99", None),
        ("-5", None),
        ("+5", None),
        ("1.5", None),
        ("٣", None),
        ("²", None),
        ("", None),
        ("soon", None),
        ("Wed, 99 Foo 2027 00:00:00 GMT", None),
        ("Wed, 01 Jan 99999 00:00:00 GMT", None),
        ("Wed, 01 Jan 2020 00:00:00 +9999", None),
    ],
)
def test_retry_after_is_clamped_or_passed_over(value: str, expected: float | None) -> None:
    assert retry_after_s(value, NOW_MS) == expected


@pytest.mark.parametrize(("ahead_s", "expected"), [(90, 90.0), (86400, 21600.0), (0, None), (-90, None)])
def test_retry_after_may_be_a_date(ahead_s: int, expected: float | None) -> None:
    moment = NOW_MS / 1000 + ahead_s
    assert retry_after_s(email.utils.formatdate(moment, usegmt=True), NOW_MS) == expected
    assert retry_after_s(email.utils.formatdate(moment).replace("-0000", ""), NOW_MS) == expected


dates = st.from_regex(r"\A(Mon, )?[0-9]{1,3} (Jan|Feb|Foo) [0-9]{1,5} [0-9]{1,3}:[0-9]{2}(:[0-9]{2})? ?(GMT|[+-][0-9]{4})?\Z")


@given(st.one_of(st.text(max_size=40), dates, st.from_regex(r"\A[0-9]+\Z")))
def test_no_retry_after_of_an_endpoint_breaks_anything(value: str) -> None:
    seconds = retry_after_s(value, NOW_MS)
    assert seconds is None or 0 < seconds <= RETRY_AFTER_MAX_S


def test_four_statuses_ask_for_less() -> None:
    assert [status for status in range(100, 600) if throttles(status)] == [429, 502, 503, 504]
