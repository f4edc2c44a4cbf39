"""Neighbours: what one consumer notices of another one's traffic and of its slow or dead sinks.

For each kind of trouble a system of its own is measured: first without the trouble, then with it, each several times. The measured
consumer gets events at a steady rate all the time, about 1 000 of them. Trouble that comes in a burst comes while they are sent, so the
p99 of all of them is judged with its onset; the p99 of the first second and of the time after it are reported besides.
"""

import asyncio
import contextlib
import operator
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import NamedTuple

from tests.bench.crowd import dead_sinks, delivery_stopped, subscribe
from tests.bench.figures import Bar, Row, ratio
from tests.bench.flows import Flow, Flows
from tests.bench.fresh import LATE_S, TICK_S, Fresh, at_once, paced
from tests.bench.load import PER_MESSAGE_MAX, Batch, batches, events, publish, publish_at_once
from tests.bench.part import Part
from tests.bench.plot import bars_svg
from tests.bench.rounds import Extent, Steps
from tests.bench.sink import Sink, sink
from tests.bench.world import bench_system, quiet
from tests.support.consumers import new_consumer
from tests.support.system.processes import System

_PER_S, _FOR_S = 170.0, 6.0
# So slow that 100 times as much is within what the machine can deliver.
_TRAFFIC_PER_S, _TRAFFIC_FOR_S = 25.0, 40.0
TRAFFIC, SLOW, DEAD, MANY = "100 times the traffic", "300 slow sinks", "300 dead catch-all sinks, 2 000 events", "10 000 dead sinks"
_TIMES, _SLOW, _DEAD, _DEAD_EVENTS, _MANY, _MANY_EVENTS = 100, 300, 300, 2_000, 10_000, 20
_SLOW_PER_S = 20.0
_NOISE = "noise.made"
# The slow sinks answer within 28 s at the earliest, which is no failure then.
_SETTINGS = {"HOOKTIDE_DELIVERY_ATTEMPT_TIMEOUT_SECONDS": "60", "HOOKTIDE_DELIVERY_FIRST_BYTE_TIMEOUT_SECONDS": "60"}
_ROUNDS_MAX = 2
_THROUGHPUT_EVENTS = 15_000


class Trouble(NamedTuple):
    """What a neighbour does."""

    prepare: Callable[["Place"], Awaitable[None]]
    """Makes the neighbour's subscriptions."""
    during: "During"
    """Makes the trouble: all of it, or for so many seconds, while the body runs."""
    is_prepared_first: bool
    """Whether the neighbour's subscriptions are made before anything is measured; they get events later."""
    saturates: bool
    """Whether the measured consumer can have the whole core besides, so that its throughput is measured at full speed."""
    per_s: float = _PER_S
    """How many events the measured consumer gets in a second."""
    for_s: float = _FOR_S


class Place(NamedTuple):
    """A system with a neighbour, whose sinks are another process's."""

    system: System
    neighbour: str
    """The id of the neighbour's consumer."""
    sinks: Sink
    dead: Sequence[str]
    extent: Extent


class Measured(NamedTuple):
    """One kind of trouble; one figure for each round."""

    without: list[Fresh]
    beside: list[Fresh]
    without_per_s: list[float]
    beside_per_s: list[float]
    """The throughput of the measured consumer: at full speed, or if the trouble takes a share of the core by right, at its steady rate."""


async def part(extent: Extent, steps: Steps) -> Part:
    """Measure; return two rows for each kind of trouble."""
    found = {name: await _measured(name, trouble, extent, steps) for name, trouble in TROUBLES.items()}
    rows = [row for name, each in found.items() for row in _rows(name, each)]
    p99_ms = {"without": [1000 * each.p99_s for one in found.values() for each in one.without]}
    p99_ms |= {name: [1000 * each.p99_s for each in one.beside] for name, one in found.items()}
    told = {
        name: {
            "without": [each._asdict() for each in one.without],
            "beside": [each._asdict() for each in one.beside],
            "without_per_s": one.without_per_s,
            "beside_per_s": one.beside_per_s,
        }
        for name, one in found.items()
    }
    return Part(rows, {"neighbours": told}, {"neighbours": bars_svg("A consumer's p99 beside its neighbours, ms", p99_ms)})


def _rows(name: str, found: Measured) -> list[Row]:
    beside_ms, without_ms = ([1000 * each.p99_s for each in side] for side in (found.beside, found.without))
    return [
        ratio(f"another consumer's p99 beside {name} ÷ without", beside_ms, without_ms, "ms", Bar(1.2, at_least=False)),
        *(
            ratio(f"the same {when}", [1000 * of(each) for each in found.beside], [1000 * of(each) for each in found.without], "ms", None)
            for when, of in _PERIODS.items()
        ),
        ratio(f"another consumer's throughput beside {name} ÷ without", found.beside_per_s, found.without_per_s, "events/s", Bar(0.9)),
    ]


_PERIODS: Mapping[str, Callable[[Fresh], float]] = {
    "in the first second": operator.attrgetter("first_p99_s"),
    "after it": operator.attrgetter("later_p99_s"),
}


async def _measured(name: str, trouble: Trouble, extent: Extent, steps: Steps) -> Measured:
    rounds = min(extent.rounds, _ROUNDS_MAX)
    steps.begin(name, 2 + 2 * rounds)
    steps.step("starting the system")
    async with contextlib.AsyncExitStack() as stack:
        seen, sinks = stack.enter_context(sink()), stack.enter_context(sink(_SLOW))
        dead = stack.enter_context(dead_sinks(extent.of(_MANY)))
        system = await stack.enter_async_context(bench_system(settings=_SETTINGS))
        flow = await Flows(system, seen).flow("fresh")
        neighbour = await new_consumer(system, "neighbour")
        place = Place(system, neighbour.id, sinks, dead, extent)
        if trouble.is_prepared_first:
            steps.step("making the neighbour's subscriptions")
            await trouble.prepare(place)
        await at_once(flow, flow.warm, f"{name}-warm-")
        without = [await _one(place, flow, trouble, steps, f"without, round {number + 1}", _nothing) for number in range(rounds)]
        if not trouble.is_prepared_first:
            steps.step("making the neighbour's subscriptions")
            await trouble.prepare(place)
        beside = [await _one(place, flow, trouble, steps, f"beside, round {number + 1}", trouble.during) for number in range(rounds)]
    return Measured(
        [each for each, _ in without], [each for each, _ in beside], [per_s for _, per_s in without], [per_s for _, per_s in beside]
    )


During = Callable[[Place, str, float], AbstractAsyncContextManager[None]]


async def _one(place: Place, flow: Flow, trouble: Trouble, steps: Steps, step: str, during: During) -> tuple[Fresh, float]:
    """Return one measurement at a steady rate, and the throughput."""
    steps.step(step)
    with contextlib.suppress(TimeoutError):  # the trouble may keep a system busy
        await quiet(place.system)
    for_s = 1.0 if place.extent.quick else trouble.for_s
    run = f"{step}-"
    async with during(place, run, for_s):
        found = await paced(flow, trouble.per_s, for_s, run)
        per_s = await at_once(flow, place.extent.of(_THROUGHPUT_EVENTS), f"{run}fast-") if trouble.saturates else found.per_s
    return found, per_s


@asynccontextmanager
async def _nothing(_place: Place, _run: str, _for_s: float) -> AsyncIterator[None]:
    yield


# The kinds of trouble


async def _prepare_traffic(place: Place) -> None:
    await subscribe(place.system, place.neighbour, [f"{place.sinks.urls('http', 1)[0]}/noise"], [_NOISE])


@asynccontextmanager
async def _traffic(place: Place, run: str, for_s: float) -> AsyncIterator[None]:
    async with _noise(place, _TIMES * _TRAFFIC_PER_S, for_s, run):
        yield


async def _prepare_slow(place: Place) -> None:
    await subscribe(place.system, place.neighbour, [f"{url}/slow" for url in place.sinks.urls("http", _SLOW)], [_NOISE])


@asynccontextmanager
async def _slow(place: Place, run: str, for_s: float) -> AsyncIterator[None]:
    """Hold every request for the whole time of the measurement; afterwards answer all, so that the next one begins as this one did."""
    await place.sinks.behave("hold")
    async with _noise(place, _SLOW_PER_S, for_s, run):
        await asyncio.sleep(min(1.0, for_s))  # until the slow sinks have all that they are given
        yield
    await place.sinks.behave("answer")


async def _prepare_dead(place: Place) -> None:
    await subscribe(place.system, place.neighbour, place.dead[:_DEAD])


async def _prepare_many(place: Place) -> None:
    async with delivery_stopped(place.system):
        await subscribe(place.system, place.neighbour, place.dead, [_NOISE])


def _burst(count: int) -> During:
    @asynccontextmanager
    async def during(place: Place, run: str, _for_s: float) -> AsyncIterator[None]:
        made = batches(events(max(10, place.extent.of(count)), f"{run}noise-", _NOISE))
        async with asyncio.TaskGroup() as group:
            group.create_task(publish_at_once(place.system, made))
            yield

    return during


@asynccontextmanager
async def _noise(place: Place, per_s: float, for_s: float, run: str) -> AsyncIterator[None]:
    """Publish the neighbour's events at a steady rate while the body runs."""
    ended = asyncio.Event()

    async def send() -> AsyncIterator[Batch]:
        made, began, sent = events(int(per_s * (for_s + LATE_S)), f"{run}noise-", _NOISE), time.monotonic(), 0
        while sent < len(made) and not ended.is_set():
            await asyncio.sleep(TICK_S)
            due = min(int((time.monotonic() - began) * per_s), sent + PER_MESSAGE_MAX)
            if due > sent:
                yield Batch(events=made[sent:due])
                sent = due

    async def stream() -> None:
        async for _ in publish(place.system, send()):
            pass

    async with asyncio.TaskGroup() as group:
        group.create_task(stream())
        try:
            yield
        finally:
            ended.set()


TROUBLES = {
    TRAFFIC: Trouble(_prepare_traffic, _traffic, is_prepared_first=True, saturates=False, per_s=_TRAFFIC_PER_S, for_s=_TRAFFIC_FOR_S),
    SLOW: Trouble(_prepare_slow, _slow, is_prepared_first=True, saturates=True),
    DEAD: Trouble(_prepare_dead, _burst(_DEAD_EVENTS), is_prepared_first=False, saturates=True),
    MANY: Trouble(_prepare_many, _burst(_MANY_EVENTS), is_prepared_first=True, saturates=True),
}
