"""Simulation from the command line: `python -m tests.simulation --seeds 5000` plays many seeds, `--seed 17` plays one again.

A seed that breaks an invariant is printed with what broke; the exit code is then 1. With `--each-flush`, a seed is played once for each of
its flushes and each side of it, with the worker killed there; `--seed 17 --kill 3:before` plays one of those again.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence

from tests.simulation.bugs import BUGS
from tests.simulation.flush_kills import Kills, Side
from tests.simulation.seed_pool import Plan, play_all, silence
from tests.simulation.seeded_run import Played, play_seed

_FAILURES_SHOWN = 5


def main() -> int:
    """Run from the command line; return the exit code."""
    parser = argparse.ArgumentParser(description="Play delivery in virtual time, in a world where anything may fail.")
    parser.add_argument("--seeds", type=int, default=1000, help="how many seeds to play")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--seed", type=int, help="play this seed alone")
    parser.add_argument("--kill", action="append", type=_kill, help="with --seed: kill the worker at this flush, as in 3:before or 3:after")
    parser.add_argument("--each-flush", type=int, metavar="SEED", nargs="*", default=[], help="seeds to play with a kill at each flush")
    parser.add_argument("--kills-max", type=int, default=1 << 30, help="with --each-flush: at most so many kills a seed, evenly spread")
    parser.add_argument("--processes", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--bug", choices=BUGS, default="", help="put this bug back first, to see which seeds catch it")
    asked = parser.parse_args()
    if asked.seed is not None:
        silence(asked.bug)
        played = play_seed(asked.seed, dict(asked.kill) if asked.kill else None)
        _say(_line(played))
        return int(bool(played.failure))
    began = time.monotonic()
    plans: list[Plan] = [(seed, None) for seed in range(asked.first, asked.first + asked.seeds)]
    plans += [plan for seed in asked.each_flush for plan in _each_flush(seed, asked.kills_max)]
    failed = _play(plans, asked.processes, asked.bug)
    _say(f"simulation: {len(plans)} runs in {time.monotonic() - began:.0f} s, {failed} broken")
    return int(failed > 0)


def _kill(text: str) -> tuple[int, Side]:
    number, _, side = text.partition(":")
    return int(number), Side(side)


def _each_flush(seed: int, kills_max: int) -> list[Plan]:
    silence()
    flushes = play_seed(seed, {}).flushes
    plans: list[Plan] = [(seed, {number: side}) for number in range(1, flushes + 1) for side in Side]
    # An odd step, so that both sides are among them.
    return plans[:: -(-len(plans) // kills_max) | 1]


def _play(plans: Sequence[Plan], processes: int, bug: str) -> int:
    failed = 0
    for (_, kills), played in zip(plans, play_all(plans, processes, bug), strict=True):
        if played.failure:
            failed += 1
            if failed <= _FAILURES_SHOWN:
                _say(_line(played, kills))
    return failed


def _line(played: Played, kills: Kills | None = None) -> str:
    options = "".join(f" --kill {number}:{side.value}" for number, side in (kills or {}).items())
    again = f"play it again with: python -m tests.simulation --seed {played.seed}{options}"
    end = f"BROKEN\n{played.failure}{again}" if played.failure else "ok"
    counts = f"{played.events} events, {played.requests} requests, {played.flushes} flushes"
    return f"seed {played.seed}{options}: trace {played.trace}, {counts}: {end}"


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
