"""Single flight: one job at a time for each key, whoever asks, in turns that are fair to owners.

names, trust → [single_flight] → fair semaphore

Law 1: everybody who asks is told once, later, on the event loop: the job's result, or that it takes too long.
Law 2: a job takes its turn as any of those who ask for it: nobody waits in the line of another owner.
"""

import asyncio
import functools
import itertools
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from services.runtime.fair_semaphore import FairSemaphore, Place

Key = TypeVar("Key", bound=Hashable)
Result = TypeVar("Result")


@dataclass(slots=True, eq=False)
class _Party(Generic[Result]):
    """All of one owner's who wait for one job."""

    timer: asyncio.TimerHandle
    place: Place | None = None
    waiting: list[Callable[[Result], None]] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class _Job(Generic[Result]):
    """A job that is under way or waits for its turn."""

    parties: dict[str, _Party[Result]] = field(default_factory=dict)
    """By owner."""
    place: Place | None = None
    """What it runs by."""
    late_at: float = 0.0
    """From when on it takes too long; 0 before it runs."""


class SingleFlight(Generic[Key, Result]):
    """Jobs by their keys. Belongs to one event loop."""

    def __init__(
        self, permits: FairSemaphore, run: Callable[[Key, str], None], *, timeout_s: float, too_late: Result, too_many: Result
    ) -> None:
        """`run` begins a job in an owner's turn; `arrived` is told of its end. Nobody waits longer than `timeout_s`, a job's turn included.

        Who asks is given `too_late` after that, and `too_many` if the owner has too many jobs waiting.
        """
        self._permits = permits
        self._run = run
        self._timeout_s = timeout_s
        self._too_late = too_late
        self._too_many = too_many
        self._loop = asyncio.get_running_loop()
        self._jobs: dict[Key, _Job[Result]] = {}

    def __contains__(self, key: Key) -> bool:
        return key in self._jobs

    def ask(self, key: Key, owner: str, then: Callable[[Result], None]) -> None:
        """Have a job done for an owner; `then` is called once, later, unless this is closed without a result before."""
        job = self._jobs.get(key)
        if job is None:
            job = self._jobs[key] = _Job()
        if job.place is not None and job.late_at <= self._loop.time():
            self._loop.call_soon(then, self._too_late)
            return
        party = job.parties.get(owner)
        if party is None:
            timer = self._loop.call_later(self._timeout_s, self._is_late, key, job, owner)
            party = job.parties[owner] = _Party(timer)
            if job.place is None:
                party.place = self._permits.enter(owner, functools.partial(self._begin, key, job))
                if party.place is None:
                    self._drop(key, job, owner)
                    self._loop.call_soon(then, self._too_many)
                    return
        party.waiting.append(then)

    def arrived(self, key: Key, result: Result) -> None:
        """Take the result of a job, and hand it to all who wait for it."""
        job = self._jobs.pop(key)
        assert job.place is not None  # noqa: S101 - it has run
        job.place.leave()
        for party in job.parties.values():
            party.timer.cancel()
            for then in party.waiting:
                then(result)

    def close(self, *result: Result) -> None:
        """Wait for no job any more; who asks is given the result, or told nothing without one."""
        for job in self._jobs.values():
            parties, job.parties = job.parties, {}
            for party in parties.values():
                party.timer.cancel()
                for then, given in itertools.product(party.waiting, result):
                    then(given)

    def _begin(self, key: Key, job: _Job[Result], place: Place) -> None:
        if job.place is not None or not job.parties:
            # It runs by the turn of another owner, or nobody waits for it any more.
            place.leave()
            return
        job.place = place
        job.late_at = self._loop.time() + self._timeout_s
        for party in job.parties.values():
            if party.place is not None and party.place is not place:
                party.place.leave()
        self._run(key, place.owner)

    def _is_late(self, key: Key, job: _Job[Result], owner: str) -> None:
        for then in self._drop(key, job, owner):
            then(self._too_late)

    def _drop(self, key: Key, job: _Job[Result], owner: str) -> list[Callable[[Result], None]]:
        """Let an owner wait no more; returns who is to be told. A job that runs goes on: its result may serve others."""
        party = job.parties.pop(owner)
        party.timer.cancel()
        if job.place is None:
            if party.place is not None:
                party.place.leave()
            if not job.parties and self._jobs.get(key) is job:
                del self._jobs[key]
        return party.waiting
