"""What scenarios in virtual time share: two subscriptions, a beginning and an end."""

import asyncio

from services.delivery.model import State, delivery_id
from services.eventlog.record import Record
from tests.simulation.registry import Wish
from tests.simulation.world import CONSUMERS, World

ALPHA = Wish("sub_" + "a" * 32, CONSUMERS[0], ("alpha",))
BETA = Wish("sub_" + "b" * 32, CONSUMERS[0], ("beta",))


async def started(world: World, *wishes: Wish) -> None:
    """Begin with these subscriptions and a worker that follows and routes as freely as a service does."""
    world.route_freely()
    for wish in wishes:
        world.change(wish)
    await world.start()
    await asyncio.sleep(1.0)


async def finished(world: World, within_s: float = 600.0) -> None:
    """Wait until all is delivered, and the worker rests."""
    await world.settle(within_s)
    await world.check_rest()


def deliveries(world: World, records: list[Record], wish: Wish = ALPHA) -> list[State]:
    """Return what has become of events for a subscription, of those that are finished."""
    states = world.states()
    return [states[key] for key in (delivery_id(record.event_id, wish.id) for record in records) if key in states]
