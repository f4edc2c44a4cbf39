from hypothesis import given
from hypothesis import strategies as st

from services.delivery.worker.backpressure import FEW, LOOK_S, MOST, Headway


def looked(*, ended: int, after_s: float, busy_s: float) -> int:
    headway = Headway()
    headway.wait_begins(100.0, 7.0)
    for _ in range(ended):
        headway.ended()
    headway.look(100.0 + after_s, 7.0 + busy_s)
    return headway.limit


def test_while_endpoints_are_what_is_waited_for_routing_goes_on() -> None:
    assert looked(ended=2000, after_s=0.5, busy_s=0.2) == MOST


def test_while_the_machine_is_what_is_waited_for_routing_keeps_a_quarter_of_a_second_ahead() -> None:
    assert looked(ended=4000, after_s=0.5, busy_s=0.4) == 2000


@given(st.integers(0, 20_000), st.floats(LOOK_S, 60.0), st.floats(0.0, 60.0))
def test_the_bound_has_bounds(ended: int, after_s: float, busy_s: float) -> None:
    assert FEW <= looked(ended=ended, after_s=after_s, busy_s=busy_s) <= MOST


@given(st.floats(0.0, LOOK_S * 0.99))
def test_a_moment_says_nothing(after_s: float) -> None:
    assert looked(ended=5, after_s=after_s, busy_s=0.0) == FEW


def test_other_bounds_hold_as_well() -> None:
    headway = Headway(2, 6)
    assert headway.limit == 2
    headway.look(1.0, 0.0)
    assert headway.limit == 6
    headway.look(2.0, 1.0)
    assert headway.limit == 2
