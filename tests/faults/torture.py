"""Torture: kills services and emitters at random under load, as often as asked, and counts what is lost.

`python -m tests.faults.torture --kills 1000 --seed 7`: nothing may be lost.
A run that finds a loss prints its seed and keeps its data directory.
"""

import argparse
import asyncio
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import uvloop

from tests.faults.campaign import EMITTER, VICTIMS, Campaign, Judgement, running_campaign
from tests.faults.disturbances import change_moods, come_and_go, cut_connections, pause
from tests.faults.load import Rates
from tests.faults.service_spawner import Nursery, running_nursery
from tests.support.system import PATIENCE_S, until

_PROGRESS_EVERY_S = 5.0
# Delivery and ingest have the most to lose.
_WEIGHTS = {"subscription": 2, "ingest": 3, "delivery": 4, "gateway": 1, EMITTER: 2}
_KILL_AFTER_S = (0.05, 1.0)
_DOWN_S = (0.0, 0.4)
# After every so many kills the load must make progress by so many events before the next kill, however slow the machine is.
_KILLS_BETWEEN = 5
_EVENTS_BETWEEN = 60


@dataclass(frozen=True, slots=True)
class Options:
    """The options of a run."""

    kills: int
    seed: int
    rates: Rates = field(default_factory=Rates)


Say = Callable[[str], None]


async def torture(options: Options, directory: Path, nursery: Nursery, say: Say) -> Judgement:
    """Run a campaign with a number of kills; return its judgement; raise `AssertionError` if it cannot finish."""
    say(f"torture: {options.kills} kills, seed {options.seed}, in {directory}")
    async with running_campaign(directory, nursery, options.seed, options.rates) as campaign:
        stop = asyncio.Event()
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            reporting = group.create_task(_report(campaign, began, say))
            async with campaign.load.running(), asyncio.TaskGroup() as unrest:
                for make in (change_moods, cut_connections, come_and_go):
                    unrest.create_task(make(campaign, stop))
                await _kill_some(campaign, options.kills)
                stop.set()
            await campaign.heal()
            await campaign.drained()
            reporting.cancel()
        judgement = await campaign.judge()
    _summarise(campaign, judgement, time.monotonic() - began, say)
    return judgement


async def _kill_some(campaign: Campaign, kills: int) -> None:
    """Kill at random moments; each killed process starts again a moment later, and another kill may come in that moment."""
    rng, never = campaign.rng, asyncio.Event()
    down: set[str] = set()

    async def revive(victim: str, after_s: float) -> None:
        await pause(never, after_s)
        campaign.start_again(victim)
        down.discard(victim)

    async with asyncio.TaskGroup() as group:
        for number in range(kills):
            await pause(never, rng.uniform(*_KILL_AFTER_S))
            victim = rng.choices(VICTIMS, [0 if each in down else _WEIGHTS[each] for each in VICTIMS])[0]
            if not down:
                campaign.check_alive()
            if victim in down:
                continue
            campaign.kill(victim)
            down.add(victim)
            group.create_task(revive(victim, rng.uniform(*_DOWN_S)))
            campaign.load.read_journal()
            if number % _KILLS_BETWEEN == 0:
                await campaign.look()
                before = len(campaign.course.emitted)
                await until(lambda before=before: len(campaign.course.emitted) >= before + _EVENTS_BETWEEN, PATIENCE_S, "load")


async def _report(campaign: Campaign, began: float, say: Say) -> None:
    while True:
        await asyncio.sleep(_PROGRESS_EVERY_S)
        kills = ", ".join(f"{name} {count}" for name, count in campaign.kills.items())
        load, evidence = campaign.load, campaign.evidence
        say(
            f"{time.monotonic() - began:6.1f} s  {sum(campaign.kills.values())} kills ({kills})  "
            f"acknowledged {len(campaign.course.emitted)}  due {load.due} and more  accepted {evidence.accepted}  "
            f"attempts {evidence.arrivals}  breaches {len(evidence.violations)}"
        )


def _summarise(campaign: Campaign, judgement: Judgement, took_s: float, say: Say) -> None:
    for name, count in campaign.kills.items():
        say(f"  {name:13} killed {count} times")
    again = f"{judgement.repeated} of them again after a 2xx, around a crash or a cut connection"
    say(f"  {judgement.attempts} attempts in {took_s:.0f} s, {again}")
    for breach in judgement.broken[:40]:
        say(f"  BROKEN {breach}")
    lost = sum(breach.startswith("I1") for breach in judgement.broken)
    more = f", {len(judgement.broken)} breaches" if judgement.broken else ""
    say(f"torture: {sum(campaign.kills.values())} kills, {judgement.acknowledged} acknowledged, {judgement.due} due, {lost} lost{more}")


def main() -> int:
    """Run from the command line; return the exit code."""
    parser = argparse.ArgumentParser(description="Kill services at random, under load, and count what was lost.")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--keep", action="store_true", help="keep the data directory also where nothing was lost")
    asked = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="hooktide-torture-"))
    with running_nursery() as nursery:
        try:
            judgement = uvloop.run(torture(Options(asked.kills, asked.seed), directory, nursery, _say))
            broken = bool(judgement.broken)
        except* AssertionError as group:
            broken = True
            for error in group.exceptions:
                _say(f"  BROKEN {error}")
    if broken:
        _say(f"torture: run it again with --seed {asked.seed}; everything is kept in {directory}")
    elif asked.keep:
        _say(f"torture: everything is kept in {directory}")
    else:
        shutil.rmtree(directory)
    return int(broken)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
