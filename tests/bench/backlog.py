"""Backlog: what events cost that wait for a dead sink, and how they drain once it is back.

A million small events wait for one subscription; one in ten thousand of them is of another type, which another subscription alone gets.
Both sinks are dead. Then the first one is back and takes what its subscription's limits permit; at last the other one is back, and
delivery looks through the whole log for its few events.
"""

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

from hooktide.event.v1 import event_pb2
from hooktide.subscription.v1 import subscription_pb2

from tests.bench.crowd import subscribe
from tests.bench.figures import Bar, Row
from tests.bench.fresh import arrived
from tests.bench.load import Batch, publish
from tests.bench.part import Part
from tests.bench.rounds import WITHIN_S, Extent, Steps
from tests.bench.sink import Sink, sink
from tests.bench.world import bench_system, cpu_s, quiet
from tests.support.consumers import new_consumer
from tests.support.memory import MB, metric, sampled
from tests.support.system.processes import System

_EVENTS, _ONE_IN, _PER_MESSAGE = 1_000_000, 10_000, 500
_TYPE, _RARE_TYPE = "backlog.made", "rare.made"
_DRAINED, _PER_S, _AT_ONCE = 40_000, 4_000.0, 32
_ANSWER_AFTER_S = 0.002
_LEAD = 4
# A breaker that opens for at most 4 s: the bench does not wait longer for a probe.
_SETTINGS = {"HOOKTIDE_DELIVERY_BREAKER_SECONDS": "0.2"}
_LOOK_S = 0.1
ROUTED = "hooktide_routed_events_total"
_EXAMINED = "one lane behind with 1 match in 10 000 events: CPU an examined event"


class Drain(NamedTuple):
    """How the first part of a backlog drained."""

    arrived: int
    wanted: int
    per_s: float
    """The rate of requests, without the first quarter."""
    at_once: int
    """The largest number of requests under way at once."""
    out_of_order: int
    """How many events came later than an event that stands further behind them in the log than the subscription's limit under way."""


class Backlog(NamedTuple):
    """The measurements."""

    waiting: int
    memory_mb: float
    """The growth of delivery's memory until the drain has ended."""
    ledger_mb: float
    """The growth of the ledger's used pages while the events waited."""
    drain: Drain
    examined_us: float
    """The CPU time of ingest and delivery for each event that the second subscription's lane passed."""
    found: int
    """How many of that subscription's events arrived."""


async def part(extent: Extent, steps: Steps) -> Part:
    """Measure once; return the rows."""
    found = await measure(extent, steps)
    drain, at = found.drain, f"{found.waiting:,} events waited"
    told = f"{drain.arrived:,} of {drain.wanted:,} events, {drain.per_s:,.0f}/s, {drain.at_once} at once"
    limits = max(drain.per_s / _PER_S, drain.at_once / _AT_ONCE)
    rows = [
        Row("memory grown by a million deliveries that wait for a dead sink", at, (found.memory_mb,), Bar(50, at_least=False), " MB"),
        Row("ledger grown by them", at, (found.ledger_mb,), Bar(1, at_least=False), " MB"),
        Row("their drain ÷ the subscription's rate", told, (drain.per_s / _PER_S,), Bar(0.9)),
        Row("their drain ÷ the subscription's limits", told, (limits,), Bar(1.02, at_least=False)),
        Row("of them drained out of order", told, (drain.out_of_order,), Bar(0, at_least=False)),
        Row(
            "one lane behind, 1 match in 10 000: an examined event",
            f"{found.found} found",
            (found.examined_us,),
            Bar(3, at_least=False),
            " µs",
        ),
    ]
    return Part(rows, {"backlog": {**found._asdict(), "drain": drain._asdict()}})


async def measure(extent: Extent, steps: Steps) -> Backlog:
    """Let events wait, drain some of them, and find the few that another subscription waits for."""
    count, rare = extent.of(_EVENTS), extent.of(_EVENTS) // _ONE_IN
    steps.begin("backlog", 4)
    steps.step("starting the system")
    async with contextlib.AsyncExitStack() as stack:
        first, second = stack.enter_context(sink()), stack.enter_context(sink())
        system = await stack.enter_async_context(bench_system(settings=_SETTINGS))
        consumer = await new_consumer(system, "backlog")
        limits = subscription_pb2.SubscriptionConfig(rate_per_second=_PER_S, in_flight_max=_AT_ONCE)
        (draining,) = await subscribe(system, consumer.id, [f"{first.urls('http', 1)[0]}/backlog"], [_TYPE], limits)
        await subscribe(system, consumer.id, [f"{second.urls('http', 1)[0]}/rare"], [_RARE_TYPE])
        await first.behave("die")
        await second.behave("die")
        await quiet(system)
        samples = await stack.enter_async_context(sampled(system, ["delivery"]))
        memory, ledger = samples.take()["delivery"], _used_bytes(system)
        steps.step(f"{count:,} events wait")
        ids = await _published(system, count, extent.of(_DRAINED))
        await until_routed(system, count)
        grown = _used_bytes(system) - ledger
        steps.step("draining")
        drain = await _drained(first, ids)
        memory_mb = (samples.most("delivery") - memory) / MB
        await consumer.unsubscribe(draining)
        with contextlib.suppress(TimeoutError):
            await quiet(system)
        steps.step("looking for the few")
        cpu_began_s, began = cpu_s(system, "ingest", "delivery"), time.monotonic()
        await second.behave("answer")
        found, _ = await arrived(second, rare, began, WITHIN_S / 3)
        examined_us = (cpu_s(system, "ingest", "delivery") - cpu_began_s) / count * 1e6
    return Backlog(count, memory_mb, grown / MB, drain, examined_us, found)


def _used_bytes(system: System) -> int:
    """Return the size of the ledger's pages in use, those in its write-ahead log as well."""
    with contextlib.closing(sqlite3.connect(f"file:{system.data_dir / 'delivery.db'}?mode=ro", uri=True)) as ledger:
        pages, free, size = (ledger.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size"))
    return int((pages - free) * size)


async def _published(system: System, count: int, kept: int) -> list[str]:
    """Publish small events as fast as possible; return the ids of the first ones of the more frequent type."""

    async def send() -> AsyncIterator[Batch]:
        for start in range(0, count, _PER_MESSAGE):
            yield Batch(events=[_event(number) for number in range(start, min(count, start + _PER_MESSAGE))])

    ids, receipts = list[str](), 0
    async with asyncio.timeout(WITHIN_S):
        async for answer in publish(system, send()):
            if len(ids) < kept:
                ids += [result.receipt.event_id for result in answer.results]
            receipts += sum(result.HasField("receipt") for result in answer.results)
    assert receipts == count
    return [event_id for number, event_id in enumerate(ids[:kept]) if number % _ONE_IN]


def _event(number: int) -> event_pb2.CloudEvent:
    type_ = _TYPE if number % _ONE_IN else _RARE_TYPE
    return event_pb2.CloudEvent(id=str(number), source="/bench", spec_version="1.0", type=type_, text_data="{}")


async def until_routed(system: System, count: float) -> None:
    """Wait until delivery has routed so many events."""
    async with asyncio.timeout(WITHIN_S):
        while await metric(system, "delivery", ROUTED) < count:  # noqa: ASYNC110 - another process's
            await asyncio.sleep(_LOOK_S)


async def _drained(seen: Sink, ids: Sequence[str]) -> Drain:
    """Let the sink answer again until so many events have come; return how they came."""
    await seen.behave(f"delay {_ANSWER_AFTER_S}")
    await arrived(seen, len(ids), time.monotonic(), WITHIN_S / 3)
    came, order, at_once = await seen.arrivals(), await seen.order(), await seen.waiting_most()
    times = sorted(came.values())
    lead = len(times) // _LEAD
    per_s = (len(times) - lead) / ((times[-1] - times[lead]) / 1e9) if len(times) > _LEAD else 0.0
    return Drain(len(times), len(ids), per_s, at_once, out_of_order(order, ids))


def out_of_order(order: Sequence[str], ids: Sequence[str], at_once: int = _AT_ONCE) -> int:
    """Return how many of the `ids`, which stand in the order of the log, came too late in an order of arrival.

    Up to `at_once` requests are under way at once and may overtake each other.
    """
    numbers = {event_id: number for number, event_id in enumerate(ids)}
    latest, late = 0, 0
    for event_id in order:
        number = numbers.get(event_id, latest)
        late += number < latest - at_once
        latest = max(latest, number)
    return late
