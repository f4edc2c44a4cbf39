"""Virtual time: an event loop that skips idle time, so that hours pass in moments and a seed gives the same run again.

A job for an executor runs on the loop at a seeded moment, and its caller hears of the result at a later seeded moment.
"""

import asyncio
import functools
import random
import selectors
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

_TURNS_MAX = 20_000
START_S = 1_800_000_000.0


class _Jumping(selectors.SelectSelector):
    """A selector that never waits: it adds the timeout to the virtual time."""

    def __init__(self) -> None:
        super().__init__()
        self.time_s = 0.0
        self.turns = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return what is ready now."""
        if timeout is None:
            message = "nothing is left that could ever happen"
            raise AssertionError(message)
        if timeout > 0:
            self.time_s += timeout
            self.turns = 0
        else:
            self.turns += 1
            if self.turns > _TURNS_MAX:
                self.turns = 0
                message = "the loop turns and turns, and no time passes"
                raise AssertionError(message)
        # Nothing in a virtual loop uses a socket or calls in from another thread.
        return []


@dataclass(eq=False)
class _Job:
    """Work for an executor."""

    run: Callable[[], None]
    handle: asyncio.TimerHandle | None = None


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop in virtual time, from a seed."""

    def __init__(self, seed: int) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)
        self._chance = random.Random(seed)
        self._free_at: dict[Executor | None, float] = {}
        self._jobs: dict[Executor | None, dict[_Job, None]] = {}
        self.jobs_done = 0
        self.job_log: list[tuple[float, str]] = []
        """When each job ran, in seconds of virtual time, and the name of its function."""
        self.killed = False
        """Whether the process that uses this loop was killed: no job runs, and no caller hears of a result."""
        self.kills_before: Callable[[str], bool] = _spare
        self.kills_after: Callable[[str], bool] = _spare
        """Called with a job's name, before and after the job runs; returns whether the process is killed at that moment."""
        self.on_kill: Callable[[], None] = _do_nothing
        self.slowness = 1.0
        """A factor for the time that jobs take."""
        self.slow_jobs: dict[str, tuple[float, float]] = {}
        """By a job's name: the seconds until it is done, and the further seconds until its caller hears of it."""

    def time(self) -> float:
        """Return virtual seconds since the loop was made."""
        return self._jumping.time_s

    def run_in_executor(  # type: ignore[override]  # the stubs want a coroutine's generics that this does not need
        self, executor: Executor | None, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Run a function at a seeded moment; the jobs of one executor run in order, each after the one before."""
        future: asyncio.Future[Any] = self.create_future()
        if self.killed:
            return future
        before_s, after_s = self.slow_jobs.get(_name(func)) or (self._duration(), self._duration())
        job = _Job(lambda: self._run_job(func, args, future, after_s))
        at = max(self.time(), self._free_at.get(executor, 0.0)) + before_s
        self._free_at[executor] = at
        jobs = self._jobs.setdefault(executor, {})
        jobs[job] = None

        def run() -> None:
            del jobs[job]
            job.run()

        job.handle = self.call_at(at, run)
        return future

    def crash_jobs(self) -> None:
        """End all waiting jobs, as a crash does: the first jobs of each executor may still run, the rest never do."""
        for jobs in self._jobs.values():
            lost = False
            for job in list(jobs):
                lost = lost or self._chance.random() < 0.5
                if job.handle is not None:
                    job.handle.cancel()
                if not lost:
                    job.run()
            jobs.clear()

    def _kill(self) -> None:
        self.killed = True
        for jobs in self._jobs.values():
            for job in jobs:
                if job.handle is not None:
                    job.handle.cancel()
            jobs.clear()
        self.on_kill()

    def _duration(self) -> float:
        # Now and then a job takes much longer, so that what usually comes first comes last.
        rare = 30.0 if self._chance.random() < 0.1 else 1.0
        return self.slowness * rare * (1e-5 + self._chance.expovariate(1000))

    def _run_job(self, func: Callable[..., Any], args: tuple[Any, ...], future: asyncio.Future[Any], after_s: float) -> None:
        self.jobs_done += 1
        name = _name(func)
        self.job_log.append((self.time(), name))
        if self.kills_before(name):
            self._kill()
            return
        try:
            result = func(*args)
        except Exception as error:  # noqa: BLE001 - handed to whoever awaits it
            self.call_later(after_s, _fail, future, error)
            return
        if self.kills_after(name):
            self._kill()
            return
        self.call_later(after_s, _settle, future, result)


def _spare(_job: str) -> bool:
    return False


def _do_nothing() -> None:
    pass


def _name(func: Callable[..., Any]) -> str:
    """Return the name of the function that a job runs, also if it runs within a transaction."""
    if not isinstance(func, functools.partial):
        return getattr(func, "__name__", "")
    first = func.args[0] if func.args else None
    return str(first.__name__ if callable(first) and hasattr(first, "__name__") else func.func.__name__)


def _settle(future: asyncio.Future[Any], result: object) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[Any], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)


class VirtualClock:
    """The clock of a virtual loop."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self.busy_share = 0.0
        """How busy the thread is, from 0 to 1; set it at the beginning."""
        self.ahead_s = 0.0
        """How many seconds the wall clock is ahead."""
        self.suspended_s = 0.0
        """How long the machine was suspended, in seconds; only the boot clock counts that time."""

    def now(self) -> float:
        """Return wall time."""
        return START_S + self.ahead_s + self._loop.time()

    def monotonic(self) -> float:
        """Return the loop's time."""
        return self._loop.time()

    def boottime(self) -> float:
        """Return the loop's time plus the time for which the machine was suspended."""
        return self._loop.time() + self.suspended_s

    def busy(self) -> float:
        """Return how much of the loop's time the thread was busy."""
        return self.busy_share * self._loop.time()
