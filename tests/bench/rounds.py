"""Rounds: several ways to do the same work, each measured once a round, in turn."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

WITHIN_S = 180.0
"""How long anything that is measured once may take."""
_QUICK = 20

T = TypeVar("T")
Way = Callable[[str], Awaitable[T]]
"""Does the work once and returns what came of it; is given a text that no other run has."""


@dataclass(frozen=True, slots=True)
class Extent:
    """How much is measured."""

    rounds: int
    quick: bool
    """Whether only to see that all works: the figures then mean nothing."""

    def of(self, count: int) -> int:
        """Return how many there are to be of what there usually are `count`."""
        return max(1, count // _QUICK) if self.quick else count


class Steps(Protocol):
    """Is told how far the measuring has come."""

    def begin(self, part: str, count: int) -> None:
        """Begin a part of so many steps."""
        ...

    def step(self, what: str) -> None:
        """Begin the next of them."""
        ...


async def in_turn(part: str, ways: Mapping[str, Way[T]], rounds: int, steps: Steps) -> dict[str, list[T]]:
    """Return what came of each way, in the order of the rounds; raises `TimeoutError` where one takes too long."""
    figures: dict[str, list[T]] = {name: [] for name in ways}
    steps.begin(part, rounds * len(ways))
    for number in range(rounds):
        for place, (name, way) in enumerate(ways.items()):
            steps.step(f"{name}, round {number + 1} of {rounds}")
            async with asyncio.timeout(WITHIN_S):
                figures[name].append(await way(f"{part}-{place}-{number}-"))
    return figures
