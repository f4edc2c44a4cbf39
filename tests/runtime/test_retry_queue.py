"""Retry queue: what runs at once, what runs again, and after which wait; in virtual time."""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import pytest

from services.runtime.fair_semaphore import Share
from services.runtime.retry_queue import RetryQueue
from tests.support.virtual_time import VirtualLoop


@dataclass
class Jobs:
    """The jobs of a queue: each takes a second, and fails as often as `failures` says."""

    failures: dict[str, int] = field(default_factory=dict)
    started: list[tuple[str, float]] = field(default_factory=list)
    under_way: int = 0
    most: int = 0

    async def run(self, key: str) -> bool:
        """Run one job."""
        self.started.append((key, asyncio.get_running_loop().time()))
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        await asyncio.sleep(1.0)
        self.under_way -= 1
        left = self.failures.get(key, 0)
        self.failures[key] = left - 1
        return left <= 0

    def times(self, key: str) -> list[float]:
        """Return when the jobs of a key started, by the first start."""
        times = [at for each, at in self.started if each == key]
        return [round(at - times[0], 3) for at in times]


def virtually(jobs: Jobs, share: Share, scene: Callable[[RetryQueue[str]], Coroutine[Any, Any, None]]) -> None:
    """Play a scene with a running queue of at most 20 keys."""

    async def play() -> None:
        queue = RetryQueue[str](jobs.run, share, keys_max=20, retry_first_s=2.0, retry_max_s=10.0)
        async with asyncio.TaskGroup() as group:
            running = group.create_task(queue.run())
            await scene(queue)
            running.cancel()

    with contextlib.closing(VirtualLoop(1)) as loop:
        loop.run_until_complete(play())


def test_jobs_run_a_few_at_once_and_each_once() -> None:
    jobs = Jobs()

    async def scene(queue: RetryQueue[str]) -> None:
        for _ in range(3):
            for number in range(12):
                assert queue.put(f"{number}", f"owner {number % 6}")
        await asyncio.sleep(60.0)
        assert len(queue) == 0

    virtually(jobs, Share(permits=5, owner_permits=2), scene)
    assert sorted(key for key, _ in jobs.started) == sorted(f"{number}" for number in range(12))
    assert jobs.most == 5


def test_a_job_is_repeated_until_it_is_done_after_waits_that_double_up_to_a_limit() -> None:
    jobs = Jobs(failures={"a": 5})

    async def scene(queue: RetryQueue[str]) -> None:
        queue.put("a", "owner")
        await asyncio.sleep(120.0)
        assert len(queue) == 0
        queue.put("a", "owner")
        await asyncio.sleep(60.0)

    virtually(jobs, Share(permits=1, owner_permits=1), scene)
    assert jobs.times("a")[:6] == pytest.approx([0.0, 3.0, 8.0, 17.0, 28.0, 39.0], abs=0.2)
    assert len(jobs.times("a")) == 7, "once more after it was done and put again"


def test_a_job_that_fails_lets_its_owners_other_keys_go_first() -> None:
    jobs = Jobs(failures={"a": 100})

    async def scene(queue: RetryQueue[str]) -> None:
        for key in ("a", "b", "c"):
            queue.put(key, "owner")
        await asyncio.sleep(20.0)

    virtually(jobs, Share(permits=1, owner_permits=1), scene)
    assert [key for key, _ in jobs.started][:4] == ["a", "b", "c", "a"]


def test_an_owner_whose_jobs_fail_delays_no_other_owner() -> None:
    jobs = Jobs(failures={f"bad {number}": 100 for number in range(10)})

    async def scene(queue: RetryQueue[str]) -> None:
        for number in range(10):
            queue.put(f"bad {number}", "bad")
        await asyncio.sleep(5.0)
        before = asyncio.get_running_loop().time()
        queue.put("good", "good")
        await asyncio.sleep(5.0)
        (started,) = [at for key, at in jobs.started if key == "good"]
        assert started - before < 0.2

    virtually(jobs, Share(permits=4, owner_permits=2), scene)


def test_a_full_queue_refuses_new_keys_and_takes_them_later() -> None:
    jobs = Jobs()

    async def scene(queue: RetryQueue[str]) -> None:
        assert all(queue.put(f"{number}", "owner") for number in range(20))
        assert not queue.put("late", "other")
        assert queue.put("7", "owner"), "it is in the queue already"
        await asyncio.sleep(60.0)
        assert queue.put("late", "other")
        await asyncio.sleep(2.0)

    virtually(jobs, Share(permits=2, owner_permits=1), scene)
    assert len(jobs.times("late")) == 1


def test_a_bug_in_a_job_ends_the_queue() -> None:
    async def broken(_key: str) -> bool:
        raise ZeroDivisionError

    async def play() -> None:
        queue = RetryQueue[str](broken, Share(1, 1), keys_max=1, retry_first_s=1.0, retry_max_s=1.0)
        queue.put("a", "owner")
        with pytest.raises(ExceptionGroup, match="unhandled"):
            await queue.run()

    asyncio.run(play())
