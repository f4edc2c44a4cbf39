"""Starts in the past, over REST with all four services as processes: a new subscription gets the events from its start on, each once."""

import asyncio
from datetime import UTC, datetime

from tests.support.consumers import new_consumer
from tests.support.system.processes import System
from tests.support.waiting import PATIENCE_S, until
from tests.support.webhook_receivers.receiver import Receiver

EVENTS = 25


async def _time_between_events() -> str:
    """Return a time, to the millisecond, that is neither that of an event before the call nor that of an event after it."""
    await asyncio.sleep(0.01)
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    await asyncio.sleep(0.01)
    return now


async def test_a_subscription_gets_each_event_from_its_start_on_once_and_in_order(system: System, receiver: Receiver) -> None:
    """With the beginning, a time, and now as the start. Events of another type stay away, and later events arrive as ever."""
    consumer = await new_consumer(system, "starts")
    async with system.emitter() as emitter:

        async def emitted(event_type: str = "start.wanted") -> list[str]:
            return [(await emitter.emit(type=event_type, source="/shop", partitionkey="one")).event_id for _ in range(EVENTS)]

        early = await emitted()
        start = await _time_between_events()
        late = await emitted()
        await emitted("start.other")
        expected = {"beginning": [*early, *late], start: late, "now": []}
        endpoints = {word: receiver.endpoint(f"start-{number}") for number, word in enumerate(expected)}
        for word, endpoint in endpoints.items():
            await consumer.subscribe(endpoint, ["start.wanted"], config={"start": word, "in_flight_max": 1})
        after = await emitted()
    for word, endpoint in endpoints.items():
        await until(lambda endpoint=endpoint: endpoint.accepted() >= set(after), PATIENCE_S, f"the webhooks from {word} on")
        assert [arrival.event_id for arrival in endpoint.arrivals] == [*expected[word], *after]


async def test_a_start_goes_on_after_kill_9_and_does_not_begin_again(system: System, receiver: Receiver) -> None:
    """Delivery is killed right after the subscription's 201, and once more in the middle of the past events."""
    consumer, endpoint = await new_consumer(system, "start-killed"), receiver.endpoint("start-killed")
    async with system.emitter() as emitter:
        sent = {(await emitter.emit(type="start.killed", source="/shop")).event_id for _ in range(EVENTS)}
        await consumer.subscribe(endpoint, ["start.killed"], config={"start": "beginning", "rate_per_second": 20})
        system.kill("delivery")
        await system.restart("delivery")
        await until(lambda: len(endpoint.accepted()) >= EVENTS // 3, PATIENCE_S, "some of the past events")
        system.kill("delivery")
        await system.restart("delivery")
        sent.add((await emitter.emit(type="start.killed", source="/shop")).event_id)
    await until(lambda: endpoint.accepted() >= sent, PATIENCE_S, "all events")
    system.kill("delivery")
    await system.restart("delivery")
    sentinel = receiver.endpoint("start-sentinel")
    await consumer.subscribe(sentinel, ["start.killed"], config={"start": "beginning"})
    await until(lambda: sentinel.accepted() >= sent, PATIENCE_S, "the past events of another subscription")
    assert endpoint.accepted() == sentinel.accepted() == sent
    # What was under way at a kill may come twice, and nothing else may.
    assert len(endpoint.arrivals) <= len(sent) + EVENTS // 3
