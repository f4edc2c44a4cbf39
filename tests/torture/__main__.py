"""Torture from the command line: `python -m tests.torture --kills 1000 --seed 7` kills processes at random; no event may be lost.

A run that finds a loss prints its seed and keeps its data directory.
"""

import argparse
import random
import shutil
import sys
import tempfile
from pathlib import Path

import uvloop

from tests.support.service_spawner import running_spawner
from tests.torture.random_kills import Options, torture


def main() -> int:
    """Run from the command line; return the exit code."""
    parser = argparse.ArgumentParser(description="Kill services at random, under load, and count what was lost.")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--workers", type=int, default=1, help="how many processes deliver")
    parser.add_argument("--keep", action="store_true", help="keep the data directory also where nothing was lost")
    asked = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="hooktide-torture-"))
    with running_spawner() as spawner:
        try:
            judgement = uvloop.run(torture(Options(asked.kills, asked.seed, workers=asked.workers), directory, spawner, _say))
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
