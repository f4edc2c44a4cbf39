"""Disturbances: what disturbs a campaign besides crashes: changing endpoints, cut connections, pauses, subscriptions that come and go."""

import asyncio
import contextlib
import time
from collections import deque
from functools import partial

from tests.support.webhook_receivers.receiver import flapping
from tests.torture.campaign import Campaign, be_well
from tests.torture.invariants import Cut, Subscribed
from tests.torture.planned_events import CONSUMERS, PATTERNS, Pattern

_LIVING_MAX = 2
_PAST_SHARE = 0.3
_QUICK_S, _SLOW_S = (0.02, 0.25), (0.25, 0.9)
_PAUSE_S = (0.2, 3.0)
_STATUSES = (500, 503, 404, 301)
_TYPES: tuple[tuple[str, ...], ...] = ((), ("order.*",), ("user.joined", "invoice.*"))


async def change_moods(campaign: Campaign, stop: asyncio.Event) -> None:
    """Let lasting endpoints be slow, fail, flap, be dead for some seconds and recover, one after another, until `stop` is set."""
    rng = campaign.rng
    lasting = [each.witness for each in campaign.course.subscribed[: len(PATTERNS)]]
    while not stop.is_set():
        witness = rng.choice(lasting)
        be_well(witness)
        match rng.randrange(6):
            case 0:
                witness.delay_s = rng.uniform(*rng.choice((_QUICK_S, _SLOW_S)))
            case 1:
                witness.status = flapping(rng, 0.3)
            case 2:
                witness.status = partial(_always, rng.choice(_STATUSES))
        await pause(stop, rng.uniform(0.1, 0.5))


async def cut_connections(campaign: Campaign, stop: asyncio.Event) -> None:
    """Take one receiver down and up again, whatever requests are under way at it, until `stop` is set."""
    rng, receiver = campaign.rng, campaign.receivers[1]
    while not stop.is_set():
        await pause(stop, rng.uniform(1.0, 5.0))
        began = time.monotonic()
        await receiver.down()
        campaign.course.cuts.append(Cut(began, time.monotonic(), frozenset(receiver.endpoints)))
        await pause(stop, rng.uniform(0.1, 0.8))
        await receiver.up()


async def pause_and_resume(campaign: Campaign, stop: asyncio.Event) -> None:
    """Pause a lasting subscription, a consumer or the system, resume it some time later, and so on until `stop` is set."""
    rng = campaign.rng
    lasting = campaign.course.subscribed[: len(PATTERNS)]
    while not stop.is_set():
        consumer = rng.randrange(CONSUMERS)
        consumer_id, _, of_consumer = campaign.of_consumer(consumer)
        match rng.randrange(5):
            case 0:
                paused = campaign.pause("/v1/system", [each for number in range(CONSUMERS) for each in campaign.of_consumer(number)[2]])
            case 1 | 2:
                paused = campaign.pause(f"/v1/consumers/{consumer_id}", of_consumer)
            case _:
                one = rng.choice(lasting)
                key = campaign.of_consumer(one.witness.pattern.consumer)[1]
                paused = campaign.pause(f"/v1/subscriptions/{one.id}", [one], key)
        async with paused:
            await pause(stop, rng.uniform(*_PAUSE_S))
        await pause(stop, rng.uniform(0.0, 1.5))


async def come_and_go(campaign: Campaign, stop: asyncio.Event) -> None:
    """Make subscriptions and delete each some time later, until `stop` is set; the last few stay."""
    rng, number, living = campaign.rng, 0, deque[Subscribed]()
    while not stop.is_set():
        number += 1
        pattern, from_beginning = Pattern(rng.randrange(CONSUMERS), rng.choice(_TYPES)), rng.random() < _PAST_SHARE
        living.append(await campaign.subscribe(f"temporary-{number}", pattern, campaign.receivers[0], from_beginning=from_beginning))
        await pause(stop, rng.uniform(0.3, 1.5))
        if len(living) > _LIVING_MAX:
            await campaign.unsubscribe(living.popleft())


def _always(status: int) -> int:
    return status


async def pause(stop: asyncio.Event, delay_s: float) -> None:
    """Wait for `delay_s` seconds, or until `stop` is set."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(delay_s):
            await stop.wait()
