from hypothesis import given
from hypothesis import strategies as st

from services.delivery.worker.backpressure import LIMIT_MAX, LIMIT_MIN, MEASURE_S, Backpressure


def looked(*, ended: int, after_s: float, busy_s: float) -> int:
    backpressure = Backpressure()
    backpressure.begin_measuring(100.0, 7.0)
    for _ in range(ended):
        backpressure.note_settled()
    backpressure.adjust(100.0 + after_s, 7.0 + busy_s)
    return backpressure.limit


def test_while_endpoints_are_what_is_waited_for_routing_goes_on() -> None:
    assert looked(ended=2000, after_s=0.5, busy_s=0.2) == LIMIT_MAX


def test_while_the_machine_is_what_is_waited_for_routing_keeps_a_quarter_of_a_second_ahead() -> None:
    assert looked(ended=4000, after_s=0.5, busy_s=0.4) == 2000


@given(st.integers(0, 20_000), st.floats(MEASURE_S, 60.0), st.floats(0.0, 60.0))
def test_the_bound_has_bounds(ended: int, after_s: float, busy_s: float) -> None:
    assert LIMIT_MIN <= looked(ended=ended, after_s=after_s, busy_s=busy_s) <= LIMIT_MAX


@given(st.floats(0.0, MEASURE_S * 0.99))
def test_a_moment_says_nothing(after_s: float) -> None:
    assert looked(ended=5, after_s=after_s, busy_s=0.0) == LIMIT_MIN


def test_other_bounds_hold_as_well() -> None:
    backpressure = Backpressure(2, 6)
    assert backpressure.limit == 2
    backpressure.adjust(1.0, 0.0)
    assert backpressure.limit == 6
    backpressure.adjust(2.0, 1.0)
    assert backpressure.limit == 2
