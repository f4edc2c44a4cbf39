"""Crowd: many subscriptions of one consumer, to sinks that are well, slow or dead."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

from hooktide.subscription.v1 import subscription_pb2 as pb

from tests.bench.sink_server import addresses
from tests.support.system.processes import System

_AT_ONCE = 32
_WITHIN_S = 60.0


async def subscribe(
    system: System, consumer_id: str, sinks: Iterable[str], types: Sequence[str] = (), config: pb.SubscriptionConfig | None = None
) -> list[str]:
    """Subscribe each sink through the registry's gRPC, which is quicker than REST; return the ids of the subscriptions."""
    wanted, made = iter(sinks), list[str]()

    async def some() -> None:
        for sink in wanted:
            request = pb.CreateSubscriptionRequest(
                consumer_id=consumer_id, subscription=pb.Subscription(sink=sink, types=types, config=config)
            )
            answer = await system.subscriptions.CreateSubscription(request, metadata=system.metadata, timeout=_WITHIN_S)
            made.append(answer.subscription.id)

    async with asyncio.TaskGroup() as group:
        for _ in range(_AT_ONCE):
            group.create_task(some())
    return made


@asynccontextmanager
async def delivery_stopped(system: System) -> AsyncIterator[None]:
    """Stop delivery while the body subscribes thousands of sinks: the registry takes half the time if delivery follows no changes."""
    await system.terminate("delivery")
    yield
    await system.restart("delivery")


@contextmanager
def dead_sinks(count: int) -> Iterator[list[str]]:
    """Yield URLs at `count` addresses that refuse every connection: their port is taken, and nobody listens there."""
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))  # noqa: S104 - nobody listens
        yield [f"http://{address}:{taken.getsockname()[1]}/dead" for address in addresses(count)]
