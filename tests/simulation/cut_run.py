"""Cut run: a seeded run in which the ledgers are cut for other numbers of workers again and again, and their workers work in turn.

One worker runs at a time, with its own ledger file and the subscriptions of its slots. So the files come to stand at different places, and
a cut lets one worker have slots that stand further than others. Starts that cut may crash at any step.
"""

import random
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from services.delivery.ledger.ledger_map import slots_of
from services.runtime import failpoints
from services.runtime.clock import unix_ms
from tests.simulation.cut_store import CutStore
from tests.simulation.end_checks import check_end, check_rest
from tests.simulation.faults import HAPPENINGS
from tests.simulation.flush_kills import FlushKills, seeded_kills
from tests.simulation.playing import play_scenario
from tests.simulation.range_invariants import RangeInvariants
from tests.simulation.tiny_settings import seeded_settings
from tests.simulation.world import World

_STEPS = 40
_DRAINED_WITHIN_S = 900.0
_MEMORY = Path("/dev/shm")  # noqa: S108 - a directory of a random name is made in it


class _CrashError(Exception):
    """What ends a start that cuts."""


def play_cut_seed(seed: int) -> tuple[str, int]:
    """Play one seed; return what broke, with a traceback (empty if every invariant held), and how often ledgers were cut."""
    with tempfile.TemporaryDirectory(prefix="hooktide-simulation-", dir=_MEMORY if _MEMORY.is_dir() else None) as directory:
        store = CutStore(Path(directory) / "delivery.db")
        run = _Run(seed, store)
        try:
            play_scenario(run.scenario, seed, seeded_settings(seed), store)
        except Exception:  # noqa: BLE001 - whatever breaks in a run is the run's result
            return run.failure or traceback.format_exc(), run.cuts
        return "", run.cuts


class _Run:
    """The scenario of one seed."""

    def __init__(self, seed: int, store: CutStore) -> None:
        self._store = store
        self._kills = FlushKills(seeded_kills(random.Random(seed)))
        self.failure = ""
        self.cuts = 0

    async def scenario(self, world: World) -> None:
        """Play the scenario, and keep the traceback of an error."""
        try:
            await self._play(world)
        except Exception:
            self.failure = traceback.format_exc()
            raise

    async def _play(self, world: World) -> None:
        invariants, chance = RangeInvariants(world, self._store), world.chance
        self._kills.watch(world.loop)
        self._kills.after_commit, world.after_trim = invariants.after_commit, invariants.after_trim
        world.subscription_id = _spread
        world.routed_min, world.routed_max = chance.choice((2, 3)), chance.choice((3, 6))
        for _ in range(chance.choice((3, 6))):
            world.subscribe()
        await world.start()
        for _ in range(_STEPS):
            if chance.random() < 0.25:
                await self._other_worker(world)
            (happening,) = chance.choices(list(HAPPENINGS), list(HAPPENINGS.values()))
            await happening(world, list(world.registry.wishes.values()))
            await world.passes(chance.choice((0.0, 0.002, 0.02, 0.1, 1.0, 5.0)) * chance.random())
            world.check()
        await self._other_worker(world, workers=1)
        await world.heal()
        await world.settle(within_s=_DRAINED_WITHIN_S)
        check_end(world)
        await check_rest(world, 10.0, 0.0)

    async def _other_worker(self, world: World, workers: int = 0) -> None:
        """Stop the worker, cut the ledgers or leave them, and start any of the workers."""
        chance = world.chance
        await world.stop(crash=chance.random() < 0.5)
        wanted = workers or chance.choice((1, 2, 3, self._store.workers))
        if wanted != self._store.workers or chance.random() < 0.2:
            while not self._cut(world, wanted):
                wanted = workers or chance.choice((1, 2, 3))
            self.cuts += 1
        number = chance.randrange(wanted)
        self._store.choose(number)
        world.worker_slots = None if wanted == 1 else slots_of(number, wanted)
        if world.clock_forward_at > 0:
            # The wall clock stepped while the worker of that file was away, or right before it ended.
            world.endpoints.forget_waits()
        await world.start()

    def _cut(self, world: World, workers: int) -> bool:
        """Cut the ledgers; return whether that went to its end."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(failpoints, "reached", _crash_at(world.chance.choice((0, 0, world.chance.randint(1, 20)))))
            try:
                self._store.cut(workers, unix_ms(world.clock))
            except _CrashError:
                return False
        return True


def _crash_at(number: int) -> Callable[[str], None]:
    left = number

    def reached(point: str) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise _CrashError(point)

    return reached


def _spread(number: int) -> str:
    """Return ids whose slots are spread evenly."""
    return f"sub_{number:030x}{int(f'{number % 256:08b}'[::-1], 2):02x}"
