"""Flows: events published to a running system, and how fast, how soon and at what cost they reach the sink.

For comparison, a transport alone sends the same requests.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

from tests.bench.bare_client import Job, Speed
from tests.bench.load import PER_MESSAGE_MAX, Batch, batches, events, publish, publish_at_once, source
from tests.bench.rounds import WITHIN_S
from tests.bench.sink import Sink
from tests.bench.world import cpu_s, on_service_core, quiet
from tests.support.consumers import Consumer, new_consumer
from tests.support.system.processes import System
from tests.support.webhook_receivers.receiver import Endpoint

_AT_ONCE = 16
# At this tick a message has some thirty events. With fewer events the messages would be the load, and half the events would not halve
# it; with more events the latencies would measure the length of the bursts.
_TICK_S = 0.008
# The steady state is measured, not the queue from the beginning of the stream.
_LEAD_S = 2.0
_WARM = 1_000


@dataclass(frozen=True, slots=True)
class Flow:
    """The events that are published to a system, and the sinks that they go to."""

    system: System
    seen: Sink
    type_: str
    """The type of the events."""
    urls: list[str]
    """The beginnings of the sinks' URLs, each with another host; the events of source n go to URL n."""
    copies: int
    """How many subscriptions get each event."""

    @property
    def warm(self) -> int:
        """How many deliveries bring the system up to speed and open its connections."""
        return max(_WARM, 2 * len(self.urls))

    def sink(self, number: int, copy: int) -> str:
        """Return the URL of a sink."""
        return f"{self.urls[number]}/{self.type_}/{copy}"


class Flows:
    """Makes flows through a system, for a consumer of their own."""

    def __init__(self, system: System, seen: Sink) -> None:
        self._system = system
        self._seen = seen
        self._consumer: Consumer | None = None

    async def flow(self, name: str, scheme: str = "http", *, hosts: int = 1, copies: int = 1) -> Flow:
        """Subscribe `hosts` sinks, each `copies` times, to a source of its own."""
        if self._consumer is None:
            self._consumer = await new_consumer(self._system, "bench")
        made = Flow(self._system, self._seen, f"bench.{name}", self._seen.urls(scheme, hosts), copies)
        wanted = iter([(number, copy) for number in range(hosts) for copy in range(copies)])

        async def subscribe(consumer: Consumer) -> None:
            for number, copy in wanted:
                endpoint = Endpoint(f"{name}-{number}-{copy}", made.sink(number, copy))
                await consumer.subscribe(endpoint, [made.type_], source=source(number))

        async with asyncio.timeout(WITHIN_S), asyncio.TaskGroup() as group:
            for _ in range(_AT_ONCE):
                group.create_task(subscribe(self._consumer))
        return made


async def delivered(flow: Flow, deliveries: int, run: str) -> Speed:
    """Publish as fast as possible.

    Return deliveries a second, from the first event sent to the last webhook received, and the CPU time of the delivery service for each
    delivery. Earlier work and the opening of connections are not measured.
    """
    await _arrived(flow, flow.warm, f"warm-{run}")
    await quiet(flow.system)
    cpu_began_s = cpu_s(flow.system, "delivery")
    per_s = await _arrived(flow, deliveries, run)
    await quiet(flow.system)
    return Speed(per_s, (cpu_s(flow.system, "delivery") - cpu_began_s) / deliveries * 1e6)


async def _arrived(flow: Flow, deliveries: int, run: str) -> float:
    count = max(1, deliveries // flow.copies)
    made = batches(events(count, run, flow.type_, len(flow.urls)))
    await flow.seen.forget()
    began_ns = time.monotonic_ns()
    await publish_at_once(flow.system, made)
    last_ns = await flow.seen.counted(count * flow.copies)
    return count * flow.copies / ((last_ns - began_ns) / 1e9)


async def latencies(flow: Flow, per_s: float, for_s: float, run: str) -> list[float]:
    """Publish at a steady rate; return for each event the seconds from its acknowledgement to its arrival, sorted.

    The events of the first two seconds, or of the first half if that is less, do not count.
    """
    await _arrived(flow, flow.warm, f"warm-{run}")
    await quiet(flow.system)
    lead_s = min(_LEAD_S, for_s)
    made = events(max(200, int(per_s * (lead_s + for_s))), run, flow.type_, len(flow.urls))

    async def send() -> AsyncIterator[Batch]:
        began, sent = time.monotonic(), 0
        while sent < len(made):
            await asyncio.sleep(_TICK_S)
            due = min(int((time.monotonic() - began) * per_s), sent + PER_MESSAGE_MAX)
            if due > sent:
                yield Batch(events=made[sent:due])
                sent = due

    await flow.seen.forget()
    acknowledged: dict[str, int] = {}
    async for answer in publish(flow.system, send()):
        now_ns = time.monotonic_ns()
        acknowledged.update((result.receipt.event_id, now_ns) for result in answer.results)
    assert len(acknowledged) == len(made)
    await flow.seen.counted(len(made))
    arrivals = await flow.seen.arrivals()
    # A webhook may arrive before its emitter has read the acknowledgement: the latency is then zero.
    measured = list(acknowledged.items())[int(per_s * lead_s) :]
    return sorted(max(0, arrivals[event_id] - at_ns) / 1e9 for event_id, at_ns in measured)


async def sample(flow: Flow) -> tuple[dict[str, str], bytes]:
    """Return the headers and the body of a request that the system makes for this flow."""
    await _arrived(flow, flow.warm, "sample-")
    return await flow.seen.sample()


async def alone(flow: Flow, like: tuple[dict[str, str], bytes], transport: str, count: int, _run: str = "") -> Speed:
    """Send requests `like` the system's to the flow's sinks by a transport alone, in a process on the services' core."""
    await quiet(flow.system)
    headers, body = like
    sinks = [flow.sink(number, 0) for number in range(len(flow.urls))]
    job = Job(transport, sinks, headers, body.decode(), count, flow.warm)
    return Speed(*await on_service_core("tests.bench.bare_client", job._asdict(), flow.system.environment()))
