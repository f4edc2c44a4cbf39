"""Scenarios: the subscriptions, the start and the end that scenarios in virtual time share."""

import asyncio

from services.delivery.model import State, delivery_id
from services.eventlog.record import Record
from tests.simulation.registry import Wish
from tests.simulation.world import CONSUMERS, World

ALPHA = Wish("sub_" + "a" * 32, CONSUMERS[0], ("alpha",))
BETA = Wish("sub_" + "b" * 32, CONSUMERS[0], ("beta",))


async def started(world: World, *wishes: Wish) -> None:
    """Start a worker with these subscriptions; it routes as far ahead as a real service may."""
    world.route_freely()
    for wish in wishes:
        world.change(wish)
    await world.start()
    await asyncio.sleep(1.0)


async def finished(world: World, within_s: float = 600.0) -> None:
    """Wait until every delivery is finished, then check that the worker is idle."""
    await world.settle(within_s)
    await world.check_rest()


def deliveries(world: World, records: list[Record], wish: Wish = ALPHA) -> list[State]:
    """Return the states of the finished deliveries of these events for a subscription."""
    states = world.states()
    return [states[key] for key in (delivery_id(record.event_id, wish.id) for record in records) if key in states]
