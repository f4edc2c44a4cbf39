from hypothesis import given
from hypothesis import strategies as st

from services.delivery.dispatch.unproven_sinks import DISTANCE_FIRST_S, DISTANCE_MAX_S, UnprovenSinks


def test_sinks_that_work_soon_keep_no_distance() -> None:
    unproven = UnprovenSinks()
    for _ in range(3):
        unproven.ended(succeeded=True)
    unproven.started(5.0)
    assert unproven.wait_s(5.0) == 0.0


def test_dead_sinks_come_to_keep_the_greatest_distance_and_a_success_halves_it() -> None:
    unproven = UnprovenSinks()
    for _ in range(20):
        unproven.ended(succeeded=False)
    unproven.started(5.0)
    assert unproven.wait_s(5.0) == 5.0 + DISTANCE_MAX_S - 5.0
    unproven.ended(succeeded=True)
    assert unproven.distance_s == DISTANCE_MAX_S / 2


@given(st.lists(st.tuples(st.sampled_from(["start", "succeed", "fail"]), st.floats(0, 0.01)), max_size=200))
def test_attempts_keep_their_distance_and_every_wait_is_short(steps: list[tuple[str, float]]) -> None:
    unproven, now = UnprovenSinks(), 0.0
    for step, passes_s in steps:
        now += passes_s
        if step == "start":
            if unproven.wait_s(now) == 0:
                distance_s = unproven.distance_s
                unproven.started(now)
                assert unproven.next_at >= now + distance_s
        else:
            before_s = unproven.distance_s
            unproven.ended(succeeded=step == "succeed")
            assert unproven.distance_s <= before_s if step == "succeed" else unproven.distance_s >= min(DISTANCE_FIRST_S, before_s)
        assert unproven.wait_s(now) <= DISTANCE_MAX_S + 1e-9
