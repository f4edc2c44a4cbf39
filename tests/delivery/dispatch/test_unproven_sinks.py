import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.delivery.dispatch.lane import Lane
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


def lane(name: str, failures: int = 0) -> Lane:
    """Return a lane whose latest attempts have failed."""
    made = Lane(name)
    made.failures = failures
    return made


def turns(unproven: UnprovenSinks, count: int) -> str:
    """Return the names of the lanes that have the next turns."""
    return "".join(unproven.unpark().subscription_id for _ in range(count))


def test_lanes_take_turns_in_the_order_of_their_coming_and_every_fourth_turn_is_for_one_that_has_failed() -> None:
    unproven = UnprovenSinks()
    for name in "abcdefgh":
        unproven.park(lane(name))
    for name in "XYZ":
        unproven.park(lane(name, failures=1))
    assert turns(unproven, 11) == "abcXdefYghZ"
    assert not unproven.is_waited_for


def test_a_lane_that_could_not_use_its_turn_comes_next() -> None:
    unproven = UnprovenSinks()
    for name in "abc":
        unproven.park(lane(name))
    first = unproven.unpark()
    unproven.park(first)
    assert turns(unproven, 3) == "abc"


def test_pages_are_read_at_the_distance_of_attempts_and_each_turn_is_taken_once() -> None:
    unproven = UnprovenSinks(distance_s=0.02)
    assert unproven.take_read_turn(5.0) == 0.0
    assert round(unproven.take_read_turn(5.0), 9) == 0.02
    assert round(unproven.take_read_turn(5.01), 9) == 0.03
    assert unproven.take_read_turn(9.0) == 0.0
    assert unproven.reads_at == 9.0 + 0.02


def test_a_turn_to_read_comes_within_ten_seconds_however_many_lanes_wait() -> None:
    unproven = UnprovenSinks(distance_s=DISTANCE_MAX_S)
    waits = [unproven.take_read_turn(5.0) for _ in range(1000)]
    assert waits == sorted(waits)
    assert waits[100] == pytest.approx(100 * DISTANCE_MAX_S)
    assert waits[-1] == 10.0


@pytest.mark.parametrize("failures", [0, 1], ids=["never tried", "failed"])
def test_no_page_is_wanted_while_many_lanes_of_the_kind_are_parked(failures: int) -> None:
    unproven = UnprovenSinks()
    wants, other = lane("wants", failures), lane("other", 1 - failures)
    for number in range(64):
        assert unproven.wants_page(wants)
        unproven.park(lane(str(number), failures))
    assert not unproven.wants_page(wants)
    assert unproven.wants_page(other)
    unproven.unpark()
    assert unproven.wants_page(wants)


def test_a_distance_that_failures_have_made_is_at_least_the_first_and_falls_to_none() -> None:
    """From the first distance on, two successes leave none; a failure then begins with the first distance again."""
    unproven = UnprovenSinks(distance_s=0.0)
    unproven.ended(succeeded=False)
    assert unproven.distance_s == DISTANCE_FIRST_S
    unproven.ended(succeeded=False)
    assert unproven.distance_s == 2 * DISTANCE_FIRST_S
    for after in (DISTANCE_FIRST_S, DISTANCE_FIRST_S / 2, 0.0, 0.0):
        unproven.ended(succeeded=True)
        assert unproven.distance_s == after


def test_an_attempt_that_starts_early_moves_the_next_one_on_by_a_distance() -> None:
    unproven = UnprovenSinks(distance_s=0.01)
    unproven.started(5.0)
    unproven.started(5.0)
    assert round(unproven.wait_s(5.0), 9) == 0.02
    assert round(unproven.wait_s(5.015), 9) == 0.005
    assert unproven.wait_s(6.0) == 0.0


def test_a_parked_lane_is_waited_for_until_it_gets_its_turn() -> None:
    unproven, one = UnprovenSinks(), lane("a", failures=1)
    assert not unproven.is_waited_for
    unproven.park(one)
    assert (one.is_parked, one.has_try_turn, unproven.is_waited_for, list(unproven.failed)) == (True, False, True, [one])
    assert unproven.unpark() is one
    assert (one.is_parked, one.has_try_turn, unproven.is_waited_for) == (False, True, False)
