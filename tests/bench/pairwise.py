"""Pairwise: compares this checkout with an earlier commit, in alternation, as ratios.

    .venv/bin/python -m tests.bench.pairwise COMMIT [--rounds 5] [--quick]

Each round runs `pairwise_round` once in a worktree of the commit and once here, in turn the one or the other first. Each checkout has its
own services and its own load, because the contract between them may have changed; both use this checkout's Python and packages. A
ratio above 1 is better than before. The program ends with 1 if a median is below 0.97.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.bench.figures import Bar, Row, ranged
from tests.support.system.processes import ROOT

AT_LEAST = 0.97
_ROUND_WITHIN_S = 300.0
_ROUND = "tests/bench/pairwise_round.py"
# What is better if it is lower, by the end of its name.
_COSTS = ("µs", "ms")


def main(commit: str, rounds: int, *, quick: bool) -> int:
    """Measure, print the ratios, and return 0 if every median is at least `AT_LEAST`."""
    console = Console(width=None if sys.stdout.isatty() else 140)
    before: list[dict[str, float]] = []
    now: list[dict[str, float]] = []
    with worktree(commit) as earlier:
        for number in range(rounds):
            sides = [(earlier, before), (ROOT, now)]
            for checkout, taken in sides if number % 2 == 0 else reversed(sides):
                console.print(f"round {number + 1} of {rounds}: {'now' if checkout == ROOT else commit}", highlight=False)
                taken.append(_measured(checkout, quick=quick))
    rows = ratios(before, now)
    console.print(_table(rows, commit))
    return 0 if quick or all(row.met for row in rows) else 1


def ratios(before: Sequence[Mapping[str, float]], now: Sequence[Mapping[str, float]]) -> list[Row]:
    """Return a row for each figure that both sides have: now ÷ before, or before ÷ now where less is better."""
    rows = []
    for name in before[0].keys() & now[0].keys():
        pairs = [(one[name], other[name]) for one, other in zip(before, now, strict=True)]
        values = tuple(old / new if name.endswith(_COSTS) else new / old for old, new in pairs)
        parts = f"{ranged([old for old, _ in pairs], 1)} → {ranged([new for _, new in pairs], 1)}"
        rows.append(Row(name, parts, values, Bar(AT_LEAST)))
    return sorted(rows, key=lambda row: row.what)


@contextmanager
def worktree(commit: str) -> Iterator[Path]:
    """Check a commit out into a folder of its own, and remove it afterwards."""
    with tempfile.TemporaryDirectory(prefix="hooktide-before-") as folder:
        path = Path(folder) / "checkout"
        _git("worktree", "add", "--detach", str(path), commit)
        try:
            yield path
        finally:
            _git("worktree", "remove", "--force", str(path))


def _git(*arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True)  # noqa: S603, S607 - git itself


def _measured(checkout: Path, *, quick: bool) -> dict[str, float]:
    environ = os.environ | {"PYTHONPATH": os.pathsep.join((str(checkout), str(checkout / "protos" / "src")))}
    # -P: the folder of the script belongs to this checkout and must not be searched.
    command = [sys.executable, "-P", str(ROOT / _ROUND), *(["quick"] if quick else [])]
    done = subprocess.run(  # noqa: S603 - ours
        command, cwd=checkout, env=environ, stdout=subprocess.PIPE, text=True, timeout=_ROUND_WITHIN_S, check=True
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _table(rows: Sequence[Row], commit: str) -> Table:
    table = Table(title=f"now ÷ {commit} (costs: the other way round); median of the rounds (range)")
    for name in ("what", "before → now", "ratio", "bar", ""):
        table.add_column(name)
    for row in rows:
        table.add_row(row.what, row.parts, ranged(row.values, 2), str(row.bar), "met" if row.met else "missed")
    return table


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.bench.pairwise", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("commit", help="the earlier commit")
    parser.add_argument("--rounds", type=int, default=5, help="how often each side is measured")
    parser.add_argument("--quick", action="store_true", help="a twentieth of everything, to see that all works")
    given = parser.parse_args()
    sys.exit(main(given.commit, given.rounds, quick=given.quick))
