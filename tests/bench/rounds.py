"""Rounds: several ways to do the same work, each measured once a round, in turn."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

WITHIN_S = 180.0
"""The longest time that one measurement may take."""
_QUICK = 20

T = TypeVar("T")
Way = Callable[[str], Awaitable[T]]
"""Does the work once and returns the result; its argument is a text that no other measurement has."""


@dataclass(frozen=True, slots=True)
class Extent:
    """How much is measured."""

    rounds: int
    quick: bool
    """Whether the run only checks that everything works: its figures mean nothing."""
    only: tuple[str, ...] = ()
    """The names of the parts to measure; empty: all."""

    def of(self, count: int) -> int:
        """Return `count`, or in a quick run a small part of it."""
        return max(1, count // _QUICK) if self.quick else count


class Steps(Protocol):
    """Hears how far the measurement has come."""

    def begin(self, part: str, count: int) -> None:
        """Begin a part with a number of steps."""
        ...

    def step(self, what: str) -> None:
        """Begin the next step."""
        ...


async def in_turn(part: str, ways: Mapping[str, Way[T]], rounds: int, steps: Steps) -> dict[str, list[T]]:
    """Return the results of each way in the order of the rounds; raise `TimeoutError` if one takes too long."""
    figures: dict[str, list[T]] = {name: [] for name in ways}
    steps.begin(part, rounds * len(ways))
    for number in range(rounds):
        for place, (name, way) in enumerate(ways.items()):
            steps.step(f"{name}, round {number + 1} of {rounds}")
            async with asyncio.timeout(WITHIN_S):
                figures[name].append(await way(f"{part}-{place}-{number}-"))
    return figures
