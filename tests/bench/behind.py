"""Behind: what ten thousand lanes cost that are behind, and what they cost once all of them may send again.

The lanes are one paused consumer's; each event of their own types is for a hundred of them. A hundred thousand such events are published
during the pause, so each lane owes a thousand deliveries: the millions that they owe in all would take too long. Measured are
- events of another consumer that all these lanes match as well, while the lanes are behind; and in turn with them, the same events in a
  second system with one such lane: it has as many consumers, who share what may be routed and not recorded. Single figures of one system
  differ by more than the bar allows
- the CPU time of delivery and ingest for a delivery, while the lanes are live, and in the first seconds after the pause
- the latency of fresh events of another consumer, during the pause and in the same seconds after it
"""

import asyncio
import contextlib
import itertools
import time
from collections.abc import Iterator
from http import HTTPStatus
from typing import NamedTuple

import psutil
from hooktide.event.v1 import event_pb2

from tests.bench.backlog import ROUTED, until_routed
from tests.bench.bare_client import Speed
from tests.bench.crowd import delivery_stopped, subscribe
from tests.bench.figures import Bar, Row, ratio
from tests.bench.flows import Flow, Flows, delivered
from tests.bench.fresh import Fresh, paced
from tests.bench.load import Batch, publish_at_once
from tests.bench.part import Part
from tests.bench.rounds import Extent, Steps
from tests.bench.sink import Sink, sink
from tests.bench.world import bench_system, cpu_s, quiet
from tests.support.consumers import new_consumer
from tests.support.memory import metric
from tests.support.system.processes import System

_LANES, _TYPES, _HOSTS = 10_000, 100, 250
_EVENTS, _LIVE_EVENTS, _MATCHED = 100_000, 600, 10_000
_PER_MESSAGE = 500
_PER_S, _FOR_S = 25.0, 8.0
_SLICES = 10
_CLOSED_WITHIN_S = 60.0


class Behind(NamedTuple):
    """The measurements."""

    alone_us: list[float]
    behind_us: list[float]
    """The CPU time of delivery for an event that one live lane gets: beside one lane that is behind, and beside all of them."""
    live: Speed
    caught_up: Speed
    """The deliveries to the lanes, with the CPU time of delivery and ingest together: live, and after the pause."""
    calm: Fresh
    beside: Fresh
    """Fresh events during the pause, and after it."""


async def part(extent: Extent, steps: Steps) -> Part:
    """Measure; return the rows."""
    found = await measure(extent, steps)
    calm_ms, beside_ms = 1000 * found.calm.p99_s, 1000 * found.beside.p99_s
    live, caught_up = found.live, found.caught_up
    at = f"{caught_up.cpu_us:,.0f} ÷ {live.cpu_us:,.0f} µs; {caught_up.per_s:,.0f} and {live.per_s:,.0f} deliveries/s"
    rows = [
        ratio("an event with 10 000 lanes behind ÷ with one, CPU", found.behind_us, found.alone_us, "µs", Bar(1.05, at_least=False)),
        Row("10 000 lanes catch up: CPU a delivery ÷ live", at, (caught_up.cpu_us / live.cpu_us,), Bar(2, at_least=False)),
        ratio("10 000 lanes catch up: fresh events' p99 ÷ before", [beside_ms], [calm_ms], "ms", Bar(1.2, at_least=False)),
    ]
    return Part(rows, {"behind": found._asdict()})


async def measure(extent: Extent, steps: Steps) -> Behind:
    """Measure one system, in this order: live, behind, and after the pause; beside it another one with a single lane."""
    for_s = _FOR_S / 4 if extent.quick else _FOR_S
    steps.begin("behind", 5)
    steps.step("starting the systems")
    async with contextlib.AsyncExitStack() as stack:
        seen, sinks = stack.enter_context(sink()), stack.enter_context(sink(_HOSTS))
        system = await stack.enter_async_context(bench_system())
        other = await stack.enter_async_context(bench_system())
        alone = await Flows(other, seen).flow("matched")
        flows = Flows(system, seen)
        matched, fresh = await flows.flow("matched"), await flows.flow("fresh")
        steps.step("making the lanes")
        lanes, lane = await _lanes(system, sinks, matched, extent.of(_LANES)), await _lanes(other, sinks, alone, 1)
        steps.step("live")
        live = await lanes.live(extent.of(_LIVE_EVENTS))
        steps.step("behind")
        await lanes.behind(extent.of(_EVENTS))
        await lane.behind(_TYPES)
        await quiet(system)
        calm = await paced(fresh, _PER_S, for_s, "calm-")
        await _until_disconnected(system)
        alone_us, behind_us = await _in_turn(alone, matched, extent.of(_MATCHED))
        steps.step("catching up")
        beside, caught_up = await lanes.catch_up(fresh, for_s)
    return Behind(alone_us, behind_us, live, caught_up, calm, beside)


async def _until_disconnected(system: System) -> None:
    """Wait until delivery has closed its idle connections to the sinks of the lanes: they cost time, whatever becomes of the lanes."""
    service = system.services["delivery"].process
    assert service is not None
    async with asyncio.timeout(_CLOSED_WITHIN_S):
        while psutil.Process(service.pid).num_fds() > _HOSTS:  # noqa: ASYNC110 - another process's
            await asyncio.sleep(1.0)


async def _in_turn(alone: Flow, matched: Flow, count: int) -> tuple[list[float], list[float]]:
    """Return what an event costs in each of two systems, slice by slice; each of them is the first every other time."""
    alone_us, behind_us = list[float](), list[float]()
    ways = [(alone, alone_us), (matched, behind_us)]
    for number in range(_SLICES):
        for flow, cpu_us in ways:
            cpu_us.append((await delivered(flow, count, f"slice-{number}-")).cpu_us)
        ways.reverse()
    return alone_us, behind_us


class _Lanes(NamedTuple):
    """Many lanes of one consumer."""

    system: System
    sinks: Sink
    consumer: str
    size: int

    async def live(self, events: int) -> Speed:
        """Publish events as fast as possible, and wait until all lanes have delivered them."""
        deliveries = events * self.size // _TYPES
        await self._deliver(_TYPES, self.size)  # this opens the connections
        await quiet(self.system)
        began, cpu_began_s = time.monotonic(), self._cpu_s()
        took_s = await self._deliver(events, deliveries) - began
        await quiet(self.system)
        return Speed(deliveries / took_s, (self._cpu_s() - cpu_began_s) / deliveries * 1e6)

    async def _deliver(self, events: int, deliveries: int) -> float:
        await self.sinks.forget()
        await self._publish(events)
        return await self.sinks.counted(deliveries) / 1e9

    async def behind(self, events: int) -> None:
        """Pause the consumer and publish events; return once all are routed."""
        await self._call("pause")
        routed = await metric(self.system, "delivery", ROUTED)
        await self._publish(events)
        await until_routed(self.system, routed + events)

    async def catch_up(self, fresh: Flow, for_s: float) -> tuple[Fresh, Speed]:
        """End the pause; return what happens in the first seconds."""
        await self.sinks.forget()
        began, cpu_began_s = time.monotonic(), self._cpu_s()
        await self._call("resume")
        found = await paced(fresh, _PER_S, for_s, "beside-")
        count, used_s, took_s = await self.sinks.count(), self._cpu_s() - cpu_began_s, time.monotonic() - began
        return found, Speed(count / took_s, used_s / max(1, count) * 1e6)

    def _cpu_s(self) -> float:
        return cpu_s(self.system, "delivery", "ingest")

    async def _call(self, what: str) -> None:
        status, answer = await self.system.call("POST", f"/v1/consumers/{self.consumer}/{what}", self.system.first.admin)
        assert status < HTTPStatus.BAD_REQUEST, answer

    async def _publish(self, count: int) -> None:
        run = str(next(_runs))
        made = (_event(f"{run}-{number}", number % _TYPES) for number in range(count))
        await publish_at_once(self.system, [Batch(events=some) for some in _parts(made)])


_runs = itertools.count()


def _parts(made: Iterator[event_pb2.CloudEvent]) -> Iterator[list[event_pb2.CloudEvent]]:
    while some := list(itertools.islice(made, _PER_MESSAGE)):
        yield some


async def _lanes(system: System, sinks: Sink, matched: Flow, count: int) -> _Lanes:
    """Subscribe lanes to the events of their own types and to those of a flow."""
    consumer, urls = await new_consumer(system, "behind"), sinks.urls("http", _HOSTS)
    async with delivery_stopped(system):
        for number in range(_TYPES):
            some = [f"{urls[lane % _HOSTS]}/{lane}" for lane in range(number, count, _TYPES)]
            await subscribe(system, consumer.id, some, [_type(number), matched.type_])
    return _Lanes(system, sinks, consumer.id, count)


def _type(number: int) -> str:
    return f"behind.t{number}"


def _event(own_id: str, type_: int) -> event_pb2.CloudEvent:
    return event_pb2.CloudEvent(id=own_id, source="/behind", spec_version="1.0", type=_type(type_), text_data="{}")
