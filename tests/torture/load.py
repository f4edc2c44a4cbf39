"""Load: the emitters of a campaign, some in the test's process and one in a process that may be killed, and what they recorded."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.service_spawner import SpawnedProcess
from tests.support.system.processes import System
from tests.support.waiting import until
from tests.torture.checking_receiver import Evidence
from tests.torture.emitter_process import EMIT_TIMEOUT_S, Acknowledged, Emitting, Entry, Order, entries, environment
from tests.torture.invariants import Course, Emitted
from tests.torture.planned_events import PATTERNS, Plan

PROCESS = "process"
# Emitters pause if more than this many due deliveries are not accepted yet.
_OUTSTANDING_MAX = 3_000


@dataclass(frozen=True, slots=True)
class Rates:
    """How fast the load emits."""

    emitters: int = 3
    """The number of emitters in the test's process."""
    per_s: float = 40.0
    """Events a second of each of these emitters."""
    process_per_s: float = 40.0
    """Events a second of the emitter in a process of its own; 0: there is no such process."""


@dataclass(slots=True)
class _Noted:
    """The journal of an emitter in the test's process."""

    load: "Load"
    name: str

    def note(self, entry: Entry) -> None:
        self.load.note(self.name, entry)


class Load:
    """Emits the plan's events and records each acknowledgement in the campaign's course."""

    def __init__(self, system: System, plan: Plan, rates: Rates, course: Course, evidence: Evidence) -> None:
        self._system = system
        self._plan = plan
        self._rates = rates
        self._course = course
        self._evidence = evidence
        self._process: SpawnedProcess | None = None
        self._began: dict[str, float] = {}
        self._read_bytes = 0
        self._rounds = 0
        self.due = 0
        """How many deliveries to lasting subscriptions are due for the acknowledged events."""

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Emit while the body runs, then wait until every tried event is acknowledged."""
        self._rounds += 1
        stop = asyncio.Event()
        async with self._system.emitter(timeout=EMIT_TIMEOUT_S) as emitter, asyncio.TaskGroup() as group:
            for number in range(self._rates.emitters):
                name = f"e{self._rounds}.{number}"
                emitting = Emitting(self._plan, name, self._rates.per_s, self._evidence.consumers, _Noted(self, name), self._holds_back)
                group.create_task(emitting.run(emitter, stop))
            if self._rates.process_per_s:
                self._start_process()
            try:
                yield
            finally:
                stop.set()
                await self._end_process()
        self.read_journal()

    def note(self, name: str, entry: Entry) -> None:
        """Record that an event was tried or acknowledged."""
        event = self._plan.event(name, entry.number)
        if not isinstance(entry, Acknowledged):
            self._began.setdefault(event.id, entry.at)
            self._course.unacknowledged.add(event.id)
            return
        self._course.unacknowledged.discard(event.id)
        if entry.event_id not in self._course.emitted:
            self._course.emitted[entry.event_id] = Emitted(event, entry.event_id, self._began[event.id], entry.at)
            self.due += sum(pattern.wants(event) for pattern in PATTERNS)

    def _holds_back(self) -> bool:
        return self.due - self._evidence.accepted > _OUTSTANDING_MAX

    # The emitter in a process of its own

    def kill_process(self) -> None:
        """Kill the emitter's process, as a crash would."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process.stdin.close()

    def start_process_again(self) -> None:
        """Start the emitter's process again; it goes on from its journal."""
        self._start_process()

    def process_has_ended(self) -> bool:
        """Return whether the emitter's process has ended without being killed."""
        return self._process is not None and self._process.poll() is not None

    def read_journal(self) -> None:
        """Record what the process has written since the last call."""
        if not self._journal.exists():
            return
        with self._journal.open("rb") as file:
            file.seek(self._read_bytes)
            whole = file.read()
        whole = whole[: whole.rfind(b"\n") + 1]
        self._read_bytes += len(whole)
        for entry in entries(whole.decode().splitlines()):
            self.note(PROCESS, entry)

    @property
    def _journal(self) -> Path:
        return self._system.data_dir / "emitter.journal"

    @property
    def _log(self) -> Path:
        return self._system.data_dir / "emitter.log"

    def _start_process(self) -> None:
        system = self._system
        consumers: Sequence[str] = self._evidence.consumers
        order = Order(system.services["ingest"].listen, self._plan.seed, PROCESS, str(self._journal), self._rates.process_per_s, consumers)
        environ = environment(system.first.emitter, system.environment())
        started = system.spawn(order.command(), environ, self._log)
        assert isinstance(started, SpawnedProcess)
        self._process = started

    async def _end_process(self) -> None:
        """End the process normally, after it has an acknowledgement for every event that it tried."""
        process, self._process = self._process, None
        if process is None:
            return
        process.stdin.close()
        await until(lambda: process.poll() is not None, EMIT_TIMEOUT_S, "the emitter's process ends")
        code = process.wait()
        assert code == 0, f"the emitter ended with {code}:\n{self._log.read_text()[-3000:]}"
