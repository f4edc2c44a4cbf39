"""Single flight: correct for any callers and any order in which jobs begin, end and are given up."""

import asyncio
import functools
import random
from collections import Counter

import pytest

from services.delivery.transport.single_flight import SingleFlight
from services.runtime.fair_semaphore import FairSemaphore, Share
from tests.support.virtual_time import VirtualLoop

OWNERS, KEYS = "abc", range(30)


@pytest.mark.parametrize("seed", range(5))
def test_everybody_is_told_once_and_no_job_runs_twice_at_once(seed: int) -> None:
    chance = random.Random(seed)
    told: Counter[int] = Counter()
    running: dict[int, str] = {}

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        permits = FairSemaphore(Share(4, 2), owner_waiting_max=8)

        def run(key: int, owner: str) -> None:
            assert key not in running
            running[key] = owner
            assert len(running) <= 4
            assert max(Counter(running.values()).values()) <= 2
            # Some jobs take longer than any caller waits.
            loop.call_later(chance.choice((0.0, 0.1, 1.0, 5.0)), end, key)

        def end(key: int) -> None:
            del running[key]
            flights.arrived(key, "done")

        def note(number: int, owner: str, result: str) -> None:
            told[number] += 1
            assert result in {"done", "late", "many"}
            if chance.random() < 0.2:
                # A caller that gets its result may ask again at once.
                flights.ask(chance.choice(KEYS), owner, lambda _result: None)

        flights = SingleFlight[int, str](permits, run, timeout_s=2.0, too_late="late", too_many="many")
        for number in range(3000):
            owner = chance.choice(OWNERS)
            flights.ask(chance.choice(KEYS), owner, functools.partial(note, number, owner))
            if chance.random() < 0.5:
                await asyncio.sleep(chance.random())
        await asyncio.sleep(60.0)
        assert not running
        assert not any(key in flights for key in KEYS)
        assert len(permits) == 0

    with asyncio.Runner(loop_factory=lambda: VirtualLoop(seed)) as runner:
        runner.run(scenario())
    assert told == Counter(range(3000))
