"""Seeded run: plays the world from a seed, and returns a hash of everything that happened.

Most runs are short, since a thousand short runs begin in more different ways than a few long ones. Every `_LONG_EVERY`th run is long. All
runs use the real worker and the real ledger: SQLite takes a sixth of a run's time, so a ledger in memory would win little.

Law: the same seed gives the same trace in every process, whatever the hashes of its strings and the addresses of its objects are.
"""

import hashlib
import random
import tempfile
import traceback
from dataclasses import dataclass
from pathlib import Path

from tests.simulation.end_checks import check_end, check_rest
from tests.simulation.faults import HAPPENINGS, WITH_PAUSED_CONSUMERS, Happening
from tests.simulation.flush_kills import FlushKills, Kills, seeded_kills
from tests.simulation.ledger_template import TemplateStore
from tests.simulation.playing import Scenario, play_scenario
from tests.simulation.range_invariants import RangeInvariants
from tests.simulation.tiny_settings import directed_settings, seeded_settings
from tests.simulation.world import World

_STEPS, _LONG_STEPS, _LONG_EVERY = 30, 120, 50
# Any seed of a short run will do.
_DIRECTED_SEED = 1
# In one of so many runs consumers are paused, too.
_PAUSED_CONSUMERS_EVERY = 8
_DRAINED_WITHIN_S = 900.0
_MEMORY = Path("/dev/shm")  # noqa: S108 - a directory of a random name is made in it


@dataclass(frozen=True, slots=True)
class Played:
    """One run."""

    seed: int
    trace: str
    """A hash of every event, request, job and end of the run, with their times."""
    flushes: int
    events: int
    requests: int
    failure: str
    """What broke, with a traceback; empty if every invariant held."""


def play_seed(seed: int, kills: Kills | None = None) -> Played:
    """Play one seed; `kills` replace the kills that the seed itself chooses."""
    return _play(seed, kills)


def play_directed(scenario: Scenario) -> Played:
    """Play a scenario instead of what a seed chooses, with the checks of a seeded run; the worker is killed only by the scenario."""
    return _play(_DIRECTED_SEED, {}, scenario)


def _play(seed: int, kills: Kills | None, directed: Scenario | None = None) -> Played:
    with tempfile.TemporaryDirectory(prefix="hooktide-simulation-", dir=_MEMORY if _MEMORY.is_dir() else None) as directory:
        store = TemplateStore(Path(directory) / "delivery.db")
        run = _Run(seed, kills, store, directed)
        try:
            settings = seeded_settings(seed) if directed is None else directed_settings()
            play_scenario(run.scenario, seed, settings, store)
            failure = ""
        except Exception:  # noqa: BLE001 - whatever breaks in a run is the run's result
            failure = run.failure or traceback.format_exc()
        return run.played(failure)


class _Run:
    """The scenario of one seed, or a directed one."""

    def __init__(self, seed: int, kills: Kills | None, store: TemplateStore, directed: Scenario | None) -> None:
        self._seed = seed
        self._directed = directed
        self._store = store
        self._kills = FlushKills(seeded_kills(random.Random(seed)) if kills is None else kills)
        self._is_long = seed % _LONG_EVERY == 0
        self._happenings = WITH_PAUSED_CONSUMERS if seed % _PAUSED_CONSUMERS_EVERY == _PAUSED_CONSUMERS_EVERY - 1 else HAPPENINGS
        self._world: World | None = None
        self.failure = ""
        """The traceback of what broke in the scenario; the end of a broken world may raise further errors."""

    async def scenario(self, world: World) -> None:
        """Play the scenario, and keep the traceback of an error."""
        self._world = world
        try:
            await self._play(world)
        except Exception:
            self.failure = traceback.format_exc()
            raise

    async def _play(self, world: World) -> None:
        """Let everything happen, then make everything work again, and check the end of it."""
        invariants = RangeInvariants(world, self._store)
        self._kills.watch(world.loop)
        self._kills.after_commit, world.after_trim = invariants.after_commit, invariants.after_trim
        await (self._directed or self._seeded)(world)
        await world.heal()
        await world.settle(within_s=_DRAINED_WITHIN_S)
        check_end(world)
        await (check_rest(world) if self._is_long else check_rest(world, 10.0, 0.0))

    async def _seeded(self, world: World) -> None:
        """Let everything happen that the seed chooses."""
        world.clock.busy_share = world.chance.choice((0.0, 1.0))
        world.endpoints.at_once = world.chance.choice((1, 3, 1000))
        world.routed_min = world.chance.choice((2, 3))
        world.routed_max = world.chance.choice((3, 6))
        world.log.page_s = world.chance.choice((0.0, 0.0, 1.0))
        for _ in range(world.chance.choice((2, 5))):
            world.subscribe()
        await world.start()
        for _ in range(_LONG_STEPS if self._is_long else _STEPS):
            await _step(world, self._happenings)

    def played(self, failure: str) -> Played:
        """Return the result."""
        world, trace = self._world, hashlib.blake2b(digest_size=8)
        if world is None:
            return Played(self._seed, "", 0, 0, 0, failure)
        facts = (
            [(each.at, each.record.event_id) for each in world.published],
            [(each.at, each.key, each.number, each.url) for each in world.endpoints.log],
            [(delivery.hex(), state) for delivery, state in sorted(world.finished.items())],
            world.loop.job_log,
        )
        trace.update(repr(facts).encode())
        return Played(self._seed, trace.hexdigest(), self._kills.flushes, len(world.published), world.endpoints.requests, failure)


async def _step(world: World, happenings: dict[Happening, int]) -> None:
    """Let one fault happen, then some time pass."""
    chance = world.chance
    (happening,) = chance.choices(list(happenings), list(happenings.values()))
    await happening(world, list(world.registry.wishes.values()))
    await world.passes(chance.choice((0.0, 0.002, 0.02, 0.1, 1.0, 5.0, 40.0)) * chance.random())
    world.check()
