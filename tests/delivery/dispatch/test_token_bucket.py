import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.delivery.dispatch.token_bucket import TokenBucket


@given(st.floats(0.01, 10_000), st.lists(st.floats(0, 3), max_size=60))
def test_in_no_second_are_there_more_than_the_rate(rate: float, rests_s: list[float]) -> None:
    """Callers may ask at any moments; a rate below one a second means one attempt in 1/rate seconds."""
    bucket, now = TokenBucket(), 1000.0
    began: list[float] = []
    window_s, most = (1.0, rate) if rate >= 1 else (1 / rate, 1.0)
    for rest_s in rests_s:
        now += rest_s
        for _ in range(50):
            if bucket.wait_s(rate, now) > 0:
                break
            bucket.take(rate, now)
            began.append(now)
    for index, first in enumerate(began):
        assert sum(first <= each < first + window_s * (1 - 1e-5) for each in began[index:]) <= most + 1 - 1e-9


@given(st.floats(0.01, 10_000))
def test_who_waits_as_long_as_told_finds_a_token(rate: float) -> None:
    bucket, now = TokenBucket(), 0.0
    for _ in range(1000):
        now += bucket.wait_s(rate, now)
        assert bucket.wait_s(rate, now) == pytest.approx(0, abs=1e-6)
        bucket.take(rate, now)
    assert 1000 / now >= 0.9 * rate
    assert bucket.full_in_s(rate, now + bucket.full_in_s(rate, now)) == pytest.approx(0, abs=1e-6)
