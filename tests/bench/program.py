"""Program: what the programs of this folder share: arguments, cores, and the display of progress."""

import argparse
import os
import sys
import time
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Self

import uvloop
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from tests.bench.rounds import Extent
from tests.bench.world import pin

MEANINGLESS = "a quick run: it shows that all works, its figures mean nothing"

# The width if there is no terminal: that of the table.
_WIDTH = 160


class Shown:
    """Shows progress on a console: a bar on a terminal, else a line for each step."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = time.monotonic()
        self._part = ""
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
        self._bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._bar.add_task("", total=None)
        self.latest = "the beginning"
        """The step that began last."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def begin(self, part: str, count: int) -> None:
        """Begin a part with a number of steps."""
        self._part = part
        self._bar.reset(self._task, total=count)
        self._bar.start()

    def step(self, what: str) -> None:
        """Begin the next step."""
        self.latest = f"{self._part}: {what}"
        line = f"{time.monotonic() - self._began:5.0f} s  {self.latest}"
        if self._console.is_terminal:
            self._bar.update(self._task, description=line)
            self._bar.advance(self._task)
        else:
            self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def show(self, *found: RenderableType) -> None:
        """Print results, or notes about what was left out; the bar stops first."""
        self._bar.stop()
        for each in found:
            self._console.print(each)


def run(name: str, about: str, main: Callable[[Extent, Shown], Coroutine[Any, Any, int]], parts: Iterable[str] = ()) -> int:
    """Read the arguments and measure; return the exit code of `main`, or 2 if nothing could be measured.

    If the program has `parts`, `--only` chooses among them.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {name}", description=about.splitlines()[0])
    parser.add_argument("--rounds", type=int, choices=range(1, 101), metavar="1…100", default=5, help="how often each thing is measured")
    parser.add_argument("--quick", action="store_true", help="a twentieth of everything, to see that all works; the figures mean nothing")
    if parts:
        about_parts = f"measure only these of: {', '.join(parts)}"
        parser.add_argument("--only", nargs="+", choices=[*parts], default=(), metavar="PART", help=about_parts)
    arguments = parser.parse_args()
    if sys.platform != "linux" or (os.cpu_count() or 1) < 2:
        sys.stderr.write("bench: Linux and two cores are needed, one for the services and one for the load\n")
        return 2
    pin()
    with Shown(Console(width=None if sys.stdout.isatty() else _WIDTH)) as shown:
        if arguments.quick:
            sys.stderr.write(f"bench: {MEANINGLESS}\n")
        try:
            return uvloop.run(main(Extent(arguments.rounds, arguments.quick, tuple(arguments.only) if parts else ()), shown))
        except TimeoutError as error:
            sys.stderr.write(f"bench: {shown.latest} did not end in time {error}\n")
            return 2
