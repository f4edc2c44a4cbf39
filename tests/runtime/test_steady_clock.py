from dataclasses import dataclass

import pytest

from services.runtime.steady_clock import CONFIRM_S, SteadyClock, confirm_s

YEAR_S = 365 * 86400.0


@dataclass
class Moved:
    """A clock that a test moves: time passes, and the wall clock steps."""

    boottime_s: float = 1000.0
    wall_s: float = 1_800_000_000.0

    def now(self) -> float:
        """Return wall time."""
        return self.wall_s

    def monotonic(self) -> float:
        """Return boot time."""
        return self.boottime_s

    def boottime(self) -> float:
        """Return boot time."""
        return self.boottime_s

    def busy(self) -> float:
        """Return 0."""
        return 0.0

    def passes(self, seconds: float) -> None:
        """Let time pass."""
        self.boottime_s += seconds
        self.wall_s += seconds


@pytest.mark.parametrize("step_s", [YEAR_S, -YEAR_S, 10.0])
def test_a_step_that_is_taken_back_is_never_seen(step_s: float) -> None:
    clock = Moved()
    steady = SteadyClock(clock)
    clock.wall_s += step_s
    for _ in range(int(CONFIRM_S) - 1):
        assert steady.now() == pytest.approx(clock.wall_s - step_s)
        clock.passes(1.0)
    clock.wall_s -= step_s
    clock.passes(3 * CONFIRM_S)
    assert steady.now() == pytest.approx(clock.wall_s)


@pytest.mark.parametrize("step_s", [YEAR_S, -YEAR_S])
def test_a_step_that_lasts_is_believed(step_s: float) -> None:
    clock = Moved()
    steady = SteadyClock(clock)
    clock.wall_s += step_s
    assert steady.now() == pytest.approx(clock.wall_s - step_s)
    clock.passes(CONFIRM_S)
    assert steady.now() == pytest.approx(clock.wall_s)


def test_steps_that_follow_each_other_begin_anew() -> None:
    clock = Moved()
    steady = SteadyClock(clock)
    began_s = clock.wall_s
    for number in range(10):
        clock.wall_s += YEAR_S
        clock.passes(CONFIRM_S - 1)
        assert steady.now() == pytest.approx(began_s + (number + 1) * (CONFIRM_S - 1))


def test_what_little_a_clock_is_corrected_by_is_followed() -> None:
    clock = Moved()
    steady = SteadyClock(clock)
    for _ in range(100):
        clock.passes(1.0)
        clock.wall_s += 0.5
        assert steady.now() == pytest.approx(clock.wall_s)


def test_it_is_settled_once_time_has_gone_on_evenly() -> None:
    """The rule also holds at the start: a machine may start with a wrong clock."""
    clock = Moved()
    steady = SteadyClock(clock, 10.0)
    assert not steady.settled()
    clock.passes(10.0)
    assert steady.settled()
    clock.wall_s += YEAR_S
    assert not steady.settled()
    clock.passes(5.0)
    clock.wall_s -= YEAR_S
    assert not steady.settled()
    clock.passes(5.0)
    assert steady.settled()
    clock.wall_s += YEAR_S
    assert not steady.settled()
    clock.passes(10.0)
    assert steady.settled()


@pytest.mark.parametrize(("window_s", "expected_s"), [(7 * 86400.0, CONFIRM_S), (3.0, 0.3)])
def test_short_times_are_confirmed_soon(window_s: float, expected_s: float) -> None:
    assert confirm_s(window_s) == pytest.approx(expected_s)
