"""Single flight: runs one job at a time for each key, and gives its result to all callers that asked; owners take turns.

resolver, tls_contexts → [single_flight] → fair_semaphore

Law 1: each caller gets one result, later, on the event loop: the job's, `too_late` or `too_many`. After `close` without a
result, waiting callers get none.
Law 2: a job starts as soon as any of its owners has a turn, so no owner waits in the queue of another.
"""

import asyncio
import functools
import itertools
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from services.runtime.fair_semaphore import FairSemaphore, PermitRequest

Key = TypeVar("Key", bound=Hashable)
Result = TypeVar("Result")


@dataclass(slots=True, eq=False)
class _Party(Generic[Result]):
    """One owner's callers that wait for one job."""

    timer: asyncio.TimerHandle
    permit_request: PermitRequest | None = None
    waiting: list[Callable[[Result], None]] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class _Job(Generic[Result]):
    """A job that runs or waits for its turn."""

    parties: dict[str, _Party[Result]] = field(default_factory=dict)
    """By owner."""
    permit_request: PermitRequest | None = None
    """The permit under which the job runs; None before it runs."""
    late_at: float = 0.0
    """When the job becomes too late; 0 before it runs."""


class SingleFlight(Generic[Key, Result]):
    """Jobs by their keys. Belongs to one event loop."""

    def __init__(
        self, permits: FairSemaphore, run: Callable[[Key, str], None], *, timeout_s: float, too_late: Result, too_many: Result
    ) -> None:
        """`run` begins a job in an owner's turn; the job's end must call `arrived`.

        A caller waits at most `timeout_s`, including the wait for a turn, and then gets `too_late`. If its owner has too many
        jobs waiting, it gets `too_many`.
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
        """Run a job for an owner, or join it; call `then` once, later, unless `close` without a result comes first."""
        job = self._jobs.get(key)
        if job is None:
            job = self._jobs[key] = _Job()
        if job.permit_request is not None and job.late_at <= self._loop.time():
            self._loop.call_soon(then, self._too_late)
            return
        party = job.parties.get(owner)
        if party is None:
            timer = self._loop.call_later(self._timeout_s, self._is_late, key, job, owner)
            party = job.parties[owner] = _Party(timer)
            if job.permit_request is None:
                party.permit_request = self._permits.enter(owner, functools.partial(self._begin, key, job))
                if party.permit_request is None:
                    self._drop(key, job, owner)
                    self._loop.call_soon(then, self._too_many)
                    return
        party.waiting.append(then)

    def arrived(self, key: Key, result: Result) -> None:
        """Take a job's result, and hand it to every caller that waits for the job."""
        job = self._jobs.pop(key)
        assert job.permit_request is not None  # noqa: S101 - it has run
        job.permit_request.leave()
        for party in job.parties.values():
            party.timer.cancel()
            for then in party.waiting:
                then(result)

    def close(self, *result: Result) -> None:
        """Stop waiting for jobs; each waiting caller gets `result` if it is given, else no call."""
        for job in self._jobs.values():
            parties, job.parties = job.parties, {}
            for party in parties.values():
                party.timer.cancel()
                for then, given in itertools.product(party.waiting, result):
                    then(given)

    def _begin(self, key: Key, job: _Job[Result], permit_request: PermitRequest) -> None:
        if job.permit_request is not None or not job.parties:
            # The job already runs in another owner's turn, or no caller waits for it.
            permit_request.leave()
            return
        job.permit_request = permit_request
        job.late_at = self._loop.time() + self._timeout_s
        for party in job.parties.values():
            if party.permit_request is not None and party.permit_request is not permit_request:
                party.permit_request.leave()
        self._run(key, permit_request.owner)

    def _is_late(self, key: Key, job: _Job[Result], owner: str) -> None:
        for then in self._drop(key, job, owner):
            then(self._too_late)

    def _drop(self, key: Key, job: _Job[Result], owner: str) -> list[Callable[[Result], None]]:
        """Remove an owner from a job, and return the callers to tell. A running job goes on: its result may serve other owners."""
        party = job.parties.pop(owner)
        party.timer.cancel()
        if job.permit_request is None:
            if party.permit_request is not None:
                party.permit_request.leave()
            if not job.parties and self._jobs.get(key) is job:
                del self._jobs[key]
        return party.waiting
