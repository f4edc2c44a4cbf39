"""Emitter process: emits the plan's events without end and keeps a journal of each attempt and each acknowledgement.

`python -m tests.torture.emitter_process <order as JSON>` runs it as a process of its own, which a test may kill. A restarted process
reads its journal, emits again every event that was tried and not acknowledged, as an emitter with an outbox does, and goes on with
the next number. It ends when its standard input closes and every tried event is acknowledged.
"""

import asyncio
import datetime as dt
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import hooktide

from tests.torture.planned_events import Plan

KEY = "FAULTS_EMITTER_KEY"
EMIT_TIMEOUT_S = 90.0
_BURST = 8
# The same at every attempt, as an outbox would keep it: another time would make another event with the same id.
_TIME = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)


class Tried(NamedTuple):
    """The emitter is about to emit an event."""

    number: int
    at: float
    """By the monotonic clock, which all processes of a machine share."""


class Acknowledged(NamedTuple):
    """An event was acknowledged."""

    number: int
    at: float
    event_id: str


Entry = Tried | Acknowledged


class Journal(Protocol):
    """Records entries in order."""

    def note(self, entry: Entry) -> None:
        """Record an entry."""
        ...


class FileJournal:
    """A journal in a file, which outlives its process."""

    def __init__(self, path: Path) -> None:
        cut_off = path.exists() and not path.read_bytes().endswith(b"\n")
        self._file = path.open("a", buffering=1)
        if cut_off:
            self._file.write("\n")

    def note(self, entry: Entry) -> None:
        """Record an entry: the operating system has it before this returns."""
        self._file.write(json.dumps(entry) + "\n")


def entries(lines: Iterable[str]) -> Iterator[Entry]:
    """Return a journal's entries, without a line that a kill cut off."""
    for line in lines:
        try:
            values = json.loads(line)
        except ValueError:
            continue
        if isinstance(values, list):
            yield Acknowledged(*values) if len(values) == len(Acknowledged._fields) else Tried(*values)


@dataclass(frozen=True, slots=True)
class Emitting:
    """One emitter's work."""

    plan: Plan
    name: str
    per_s: float
    consumers: Sequence[str]
    """The consumers' ids; the plan refers to consumers by their index here."""
    journal: Journal
    holds_back: Callable[[], bool] = lambda: False
    """Whether to pause because the rest of the system is far behind."""

    async def run(self, emitter: hooktide.Emitter, stop: asyncio.Event, *, again: Sequence[int] = (), first: int = 0) -> None:
        """Emit the numbers in `again`, then all from `first` on until `stop` is set; return when all are acknowledged."""
        await asyncio.gather(*(self._emit(emitter, number) for number in again))
        number = first
        while not stop.is_set():
            if not self.holds_back():
                await asyncio.gather(*(self._emit(emitter, each) for each in range(number, number + _BURST)))
                number += _BURST
            await asyncio.sleep(_BURST / self.per_s)

    async def _emit(self, emitter: hooktide.Emitter, number: int) -> None:
        event = self.plan.event(self.name, number)
        self.journal.note(Tried(number, time.monotonic()))
        receipt = await emitter.emit(
            type=event.type,
            source=event.source,
            id=event.id,
            subject=event.subject,
            partitionkey=event.partitionkey,
            audience=None if event.audience is None else self.consumers[event.audience],
            data=event.data,
            time=_TIME,
        )
        self.journal.note(Acknowledged(number, time.monotonic(), receipt.event_id))


@dataclass(frozen=True, slots=True)
class Order:
    """The order for an emitter's process."""

    target: str
    seed: int
    name: str
    journal: str
    per_s: float
    consumers: Sequence[str]

    def command(self) -> list[str]:
        """Return the command that runs the process."""
        return [sys.executable, "-m", "tests.torture.emitter_process", json.dumps(asdict(self))]


def environment(key: str, base: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of the process; the key is there so that the list of processes does not show it."""
    return {**base, KEY: key}


async def run(order: Order, before: Sequence[Entry]) -> None:
    """Go on from a journal's entries until standard input closes."""
    tried = {entry.number for entry in before}
    settled = {entry.number for entry in before if isinstance(entry, Acknowledged)}
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_stdin() -> None:
        if not os.read(0, 1):
            loop.remove_reader(0)
            stop.set()

    loop.add_reader(0, on_stdin)
    emitting = Emitting(Plan(order.seed), order.name, order.per_s, order.consumers, FileJournal(Path(order.journal)))
    async with hooktide.Emitter(order.target, key=os.environ[KEY], timeout=EMIT_TIMEOUT_S) as emitter:
        await emitting.run(emitter, stop, again=sorted(tried - settled), first=max(tried, default=-1) + 1)


def main(order: Order) -> None:
    """Run as the emitter's process."""
    journal = Path(order.journal)
    before = list(entries(journal.read_text().splitlines())) if journal.exists() else []
    asyncio.run(run(order, before))


if __name__ == "__main__":
    main(Order(**json.loads(sys.argv[1])))
