import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import hooktide
import pytest

from tests.support.consumers import new_consumer
from tests.support.service_spawner import shared_spawner
from tests.support.system.processes import SERVICES, System, running_system
from tests.support.waiting import until
from tests.support.webhook_receivers.receiver import Endpoint, Receiver

_Result = TypeVar("_Result")


async def _emit_until(system: System, stop: asyncio.Event, acknowledged: set[str], endpoint: Endpoint) -> None:
    """Emit without pause, but never far ahead of the receiver, so that the backlog drains soon after the end."""
    async with system.emitter(timeout=60.0) as emitter:
        number = 0
        while not stop.is_set():
            if len(acknowledged) > len(endpoint.arrivals) + 3000:
                await asyncio.sleep(0.01)
                continue
            receipts = await asyncio.gather(*(emitter.emit(type="kill.made", source="/shop", data=number + each) for each in range(20)))
            acknowledged.update(receipt.event_id for receipt in receipts)
            number += 20


@pytest.mark.slow
async def test_each_service_is_killed_once_under_load_and_nothing_is_lost(tmp_path: Path) -> None:
    async with running_system(tmp_path, spawn=shared_spawner().spawn) as system, Receiver() as receiver:
        consumer = await new_consumer(system, "steady")
        endpoint = receiver.endpoint("steady")
        await consumer.subscribe(endpoint, ["kill.*"])
        stop, acknowledged = asyncio.Event(), set[str]()
        async with asyncio.TaskGroup() as group:
            group.create_task(_emit_until(system, stop, acknowledged, endpoint))
            for name in SERVICES:
                before = len(acknowledged)
                await until(lambda before=before: len(acknowledged) > before + 100, 60, f"load before {name} is killed")
                await system.kill_and_restart(name)
            stop.set()
        await until(lambda: endpoint.accepted() >= acknowledged, 60, f"all {len(acknowledged)} that were acknowledged")
        assert all(arrival.verified for arrival in endpoint.arrivals)
        for arrivals in endpoint.by_event().values():
            assert len({arrival.body for arrival in arrivals}) == 1


@pytest.mark.slow
async def test_a_subscription_gets_what_follows_its_201_and_nothing_that_follows_its_204(tmp_path: Path) -> None:
    """Over 500 rounds the registry is killed and started again, each time after a random number of rounds, whatever the machine's speed."""
    rounds, kills, seed = 500, 8, random.randrange(1 << 32)
    rng = random.Random(seed)
    begun, kill_after = 0, sorted(rng.sample(range(20, rounds - 20), kills))
    async with running_system(tmp_path, spawn=shared_spawner().spawn) as system, Receiver() as receiver:
        consumer = await new_consumer(system, "reads its own writes")
        due: dict[str, set[str]] = {}
        forbidden: dict[str, set[str]] = {}

        async def one_round(emitter: hooktide.Emitter, number: int) -> None:
            nonlocal begun
            begun += 1
            endpoint = receiver.endpoint(f"round-{number}")
            subscription_id = await _eventually(lambda: consumer.subscribe(endpoint, [f"round.made.n{number}"]))
            wanted = await emitter.emit(type=f"round.made.n{number}", source="/shop", data="due")
            due.setdefault(endpoint.name, set()).add(wanted.event_id)
            await until(lambda: wanted.event_id in endpoint.accepted(), 60, f"round {number}: the event after the 201 (seed {seed})")
            await _eventually(lambda: _unsubscribe(system, consumer.key, subscription_id))
            late = await emitter.emit(type=f"round.made.n{number}", source="/shop", data="late")
            forbidden.setdefault(endpoint.name, set()).add(late.event_id)

        async def killer() -> None:
            for after in kill_after:
                await until(lambda after=after: begun >= after, 120, f"round {after}, after which the registry is killed (seed {seed})")
                await system.kill_and_restart("subscription")

        async def runner(emitter: hooktide.Emitter, numbers: Iterator[int]) -> None:
            for number in numbers:
                await one_round(emitter, number)

        async with system.emitter(timeout=60.0) as emitter:
            numbers = iter(range(rounds))
            async with asyncio.TaskGroup() as group:
                group.create_task(killer())
                for _ in range(40):
                    group.create_task(runner(emitter, numbers))
            last = receiver.endpoint("last")
            await _eventually(lambda: consumer.subscribe(last, ["last.made"]))
            end = await emitter.emit(type="last.made", source="/shop", data="end")
            await until(lambda: end.event_id in last.accepted(), 60, "the last event, behind all others")
        assert len(due) == len(forbidden) == rounds
        for name, event_ids in forbidden.items():
            arrived = {arrival.event_id for arrival in receiver.endpoints[name].arrivals}
            assert not arrived & event_ids, f"seed {seed}, {name}: an event that was acknowledged after the 204 arrived"
            assert due[name] <= arrived
        assert system.services["subscription"].starts == 1 + kills


async def _unsubscribe(system: System, key: str, subscription_id: str) -> None:
    """Delete; a 404 after a lost answer means that the subscription is deleted."""
    status, answer = await system.call("DELETE", f"/v1/subscriptions/{subscription_id}", key)
    assert status in {204, 404}, answer


async def _eventually(step: Callable[[], Awaitable[_Result]]) -> _Result:
    """Repeat a REST step while the registry is down; its refusals fail the step's own check."""
    end = time.monotonic() + 60
    while True:
        try:
            return await step()
        except AssertionError:
            if time.monotonic() > end:
                raise
            await asyncio.sleep(0.05)
