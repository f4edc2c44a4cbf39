"""Random kills: kills services and emitters at random under load, as often as asked, and counts the lost events."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.service_spawner import Spawner
from tests.support.waiting import PATIENCE_S, until
from tests.torture.campaign import EMITTER, VICTIMS, Campaign, Judgement, running_campaign
from tests.torture.disturbances import change_moods, come_and_go, cut_connections, pause, pause_and_resume
from tests.torture.load import Rates

_PROGRESS_EVERY_S = 5.0
# Delivery and ingest have the most to lose.
_WEIGHTS = {"subscription": 2, "ingest": 3, "delivery": 4, "gateway": 1, EMITTER: 2}
# How often only one of several delivery workers is killed; otherwise all are killed with their parent.
_WORKER_SHARE = 0.6
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
    workers: int = 1
    """How many processes deliver."""


Say = Callable[[str], None]


async def torture(options: Options, directory: Path, spawner: Spawner, say: Say) -> Judgement:
    """Run a campaign with a number of kills; return its judgement; raise `AssertionError` if it cannot finish."""
    say(f"torture: {options.kills} kills, seed {options.seed}, in {directory}")
    async with running_campaign(directory, spawner, options.seed, options.rates, workers=options.workers) as campaign:
        stop = asyncio.Event()
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            reporting = group.create_task(_report(campaign, began, say))
            async with campaign.load.running(), asyncio.TaskGroup() as unrest:
                for make in (change_moods, cut_connections, come_and_go, pause_and_resume):
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
            if victim == "delivery" and rng.random() < _WORKER_SHARE and campaign.workers():
                campaign.kill_worker()
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
    say(f"  {len(campaign.course.pauses)} pauses; delivery was started in {judgement.pauses} of them")
    for breach in judgement.broken[:40]:
        say(f"  BROKEN {breach}")
    lost = sum(breach.startswith("I1") for breach in judgement.broken)
    more = f", {len(judgement.broken)} breaches" if judgement.broken else ""
    say(f"torture: {sum(campaign.kills.values())} kills, {judgement.acknowledged} acknowledged, {judgement.due} due, {lost} lost{more}")
