"""Scenarios: the subscriptions, the start and the end that scenarios in virtual time share."""

import asyncio

from services.delivery.ledger.rows import EndedRow
from services.delivery.model import State, delivery_id
from services.eventlog.record import Record
from tests.simulation.end_checks import check_rest
from tests.simulation.endpoints import Mode
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


async def started_failing(world: World, count: int, for_s: float) -> list[Record]:
    """Start a worker while ALPHA's sink fails, publish `count` events for it, and return them after `for_s` seconds of attempts."""
    await started(world, ALPHA)
    world.endpoints.modes[ALPHA.id] = Mode.FAILING
    records = world.publish(count, "alpha")
    await asyncio.sleep(for_s)
    return records


async def finished(world: World, within_s: float = 600.0) -> None:
    """Wait until every delivery is finished, then check that the worker is idle."""
    await world.settle(within_s)
    await check_rest(world)


def deliveries(world: World, records: list[Record], wish: Wish = ALPHA) -> list[State]:
    """Return the states of the finished deliveries of these events for a subscription, with or without a row of their own."""
    states, ended = world.states(), world.store.ended(wish.id)
    found = [states.get(delivery_id(record.event_id, wish.id)) or _ended_as(ended, record) for record in records]
    return [state for state in found if state is not None]


def _ended_as(ended: list[EndedRow], record: Record) -> State | None:
    return next((row.reason for row in ended if row.after[record.shard] < record.position <= row.through[record.shard]), None)
