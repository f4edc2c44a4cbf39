"""Fresh: how soon new events reach a healthy sink, and how many of them, while something else is under way."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import NamedTuple

from tests.bench.figures import percentile
from tests.bench.flows import Flow
from tests.bench.load import PER_MESSAGE_MAX, Batch, batches, events, publish, publish_at_once
from tests.bench.sink import Sink

TICK_S = 0.008
"""How often a steady stream sends a message."""
LATE_S = 10.0
"""How long an event is waited for."""
_SECOND_NS = 1_000_000_000


class Fresh(NamedTuple):
    """The events of one measurement."""

    p50_s: float
    p99_s: float
    """From acknowledgement to arrival. An event that has not arrived 10 s after the last acknowledgement counts with its wait so far."""
    first_p99_s: float
    """The same of the events that were acknowledged within the first second."""
    later_p99_s: float
    """The same of all others."""
    per_s: float
    """How many arrived by a second after the last acknowledgement, for each second from the first event to that acknowledgement."""


async def paced(flow: Flow, per_s: float, for_s: float, run: str) -> Fresh:
    """Publish to a flow at a steady rate."""
    made = events(max(10, int(per_s * for_s)), run, flow.type_)

    async def send() -> AsyncIterator[Batch]:
        began, sent = time.monotonic(), 0
        while sent < len(made):
            await asyncio.sleep(TICK_S)
            due = min(1 + int((time.monotonic() - began) * per_s), sent + PER_MESSAGE_MAX)
            if due > sent:
                yield Batch(events=made[sent:due])
                sent = due

    await flow.seen.forget()
    began_ns = time.monotonic_ns()
    acknowledged: dict[str, int] = {}
    async for answer in publish(flow.system, send()):
        now_ns = time.monotonic_ns()
        acknowledged.update((result.receipt.event_id, now_ns) for result in answer.results)
    assert len(acknowledged) == len(made)
    await arrived(flow.seen, len(made), 0.0)
    asked_ns = time.monotonic_ns()
    arrivals = await flow.seen.arrivals()
    waits = [(at_ns - began_ns, max(0, arrivals.get(event_id, asked_ns) - at_ns) / 1e9) for event_id, at_ns in acknowledged.items()]
    first = sorted(wait_s for after_ns, wait_s in waits if after_ns < _SECOND_NS)
    later = sorted(wait_s for after_ns, wait_s in waits if after_ns >= _SECOND_NS)
    whole = sorted(wait_s for _, wait_s in waits)
    in_time = sum(at_ns <= now_ns + _SECOND_NS for at_ns in arrivals.values())
    per_s = in_time / ((now_ns - began_ns) / _SECOND_NS)
    p99_s = percentile(whole, 0.99)
    return Fresh(percentile(whole, 0.5), p99_s, percentile(first or whole, 0.99), percentile(later or whole, 0.99), per_s)


async def at_once(flow: Flow, count: int, run: str) -> float:
    """Publish as fast as possible; return how many arrived in a second, until the last one or until 10 s after the last acknowledgement."""
    made = batches(events(count, run, flow.type_))
    await flow.seen.forget()
    began = time.monotonic()
    await publish_at_once(flow.system, made)
    found, took_s = await arrived(flow.seen, count, began)
    return found / took_s


async def arrived(seen: Sink, count: int, began: float, within_s: float = LATE_S) -> tuple[int, float]:
    """Wait at most so long until a number of requests have come.

    Return how many have come, and the seconds from `began` (by the monotonic clock) to the last one, or to now if some are missing.
    """
    with contextlib.suppress(TimeoutError):
        return count, await seen.counted(count, within_s) / _SECOND_NS - began
    return await seen.count(), time.monotonic() - began
