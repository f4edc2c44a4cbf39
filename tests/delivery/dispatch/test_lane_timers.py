import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from services.delivery.dispatch.lane import Lane
from services.delivery.dispatch.lane_timers import LaneTimers
from tests.support.virtual_time import VirtualClock, VirtualLoop


@dataclass
class Rung:
    """Timers in virtual time, and the times at which they woke each lane."""

    loop: VirtualLoop
    rings: list[tuple[float, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.clock = VirtualClock(self.loop)
        self.timers = LaneTimers(self.clock, lambda lane: self.rings.append((round(self.loop.time(), 6), lane.subscription_id)))


def in_virtual_time(run: Callable[[Rung], Coroutine[Any, Any, None]]) -> list[tuple[float, str]]:
    with asyncio.Runner(loop_factory=lambda: VirtualLoop(0)) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, VirtualLoop)
        rung = Rung(loop)
        runner.run(run(rung))
        return rung.rings


def lane(name: str) -> Lane:
    return Lane(name)


def test_each_lane_is_woken_at_its_time() -> None:
    async def run(rung: Rung) -> None:
        for name, when in (("b", 2.0), ("a", 1.0), ("c", 3.0)):
            rung.timers.at(when, lane(name))
        await asyncio.sleep(10)

    assert in_virtual_time(run) == [(1.0, "a"), (2.0, "b"), (3.0, "c")]


def test_of_several_times_for_one_lane_the_earliest_counts() -> None:
    """A lane asks again when it is awake, so that later times need not be kept."""

    async def run(rung: Rung) -> None:
        one = lane("a")
        for when in (5.0, 7.0, 3.0, 4.0):
            rung.timers.at(when, one)
        await asyncio.sleep(3.5)
        rung.timers.at(6.0, one)
        await asyncio.sleep(10)

    assert in_virtual_time(run) == [(3.0, "a"), (6.0, "a")]


def test_a_time_gone_by_wakes_soon_and_not_within_the_call() -> None:
    async def run(rung: Rung) -> None:
        await asyncio.sleep(5)
        rung.timers.at(1.0, lane("a"))
        assert rung.rings == []
        await asyncio.sleep(0.1)

    assert in_virtual_time(run) == [(5.0, "a")]


def test_once_closed_nobody_is_woken() -> None:
    async def run(rung: Rung) -> None:
        rung.timers.at(1.0, lane("a"))
        rung.timers.close()
        rung.timers.at(2.0, lane("b"))
        await asyncio.sleep(10)

    assert in_virtual_time(run) == []


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 50), st.integers(0, 5)), max_size=40))
def test_every_lane_is_woken_at_the_earliest_time_it_has_asked_for(asked: list[tuple[int, int, int]]) -> None:
    """The order of the requests does not matter, and time passes between them."""
    expected: list[tuple[float, str]] = []
    pending: dict[str, float] = {}

    def passes(until: float) -> None:
        due = sorted((when, name) for name, when in pending.items() if when <= until)
        for when, name in due:
            expected.append((when, name))
            del pending[name]

    async def run(rung: Rung) -> None:
        lanes = [lane(str(number)) for number in range(4)]
        for number, ahead, pause in asked:
            now = rung.loop.time()
            # No time falls on the moment of another event, so that there is a single right order.
            when = round(now + ahead + 0.5 + number / 10, 6)
            rung.timers.at(when, lanes[number])
            pending[str(number)] = min(when, pending.get(str(number), when))
            await asyncio.sleep(pause)
            passes(rung.loop.time())
        await asyncio.sleep(100)
        passes(1e9)

    assert sorted(in_virtual_time(run)) == sorted((round(when, 6), name) for when, name in expected)
