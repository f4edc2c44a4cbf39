"""Flush kills: counts the flushes of a run, and kills the worker right before or right after chosen ones."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

from tests.support.virtual_time import VirtualLoop

_FLUSH = "flush"
# So few that a run still ends.
_KILLS_MAX = 6
_FLUSHES_BETWEEN = (0, 2, 10, 40)


class Side(Enum):
    """On which side of a flush's transaction the worker is killed."""

    BEFORE = "before"
    AFTER = "after"


Kills = Mapping[int, Side]
"""By a flush's number, counted from 1 over all workers of a run."""


@dataclass
class FlushKills:
    """Counts flushes and kills the worker at the chosen ones."""

    kills: Kills
    flushes: int = 0
    after_commit: Callable[[], None] = lambda: None
    """Called after each flush, before the worker may be killed."""

    def watch(self, loop: VirtualLoop) -> None:
        """Watch the jobs of a loop."""
        loop.kills_before, loop.kills_after = self._before, self._after

    def _before(self, job: str) -> bool:
        self.flushes += job == _FLUSH
        return job == _FLUSH and self.kills.get(self.flushes) is Side.BEFORE

    def _after(self, job: str) -> bool:
        if job != _FLUSH:
            return False
        self.after_commit()
        return self.kills.get(self.flushes) is Side.AFTER


def seeded_kills(chance: random.Random) -> Kills:
    """Choose flushes of a run at random: none, a few, or most of the first ones."""
    between = chance.choice(_FLUSHES_BETWEEN)
    kills: dict[int, Side] = {}
    number = 0
    while between and len(kills) < _KILLS_MAX:
        number += chance.randint(1, between)
        kills[number] = chance.choice(tuple(Side))
    return kills
