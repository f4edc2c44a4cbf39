"""Faults: what may happen in the simulated world, and how often."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial

from tests.simulation.endpoints import Mode
from tests.simulation.registry import DISABLED, PAUSED, Wish
from tests.simulation.world import PATTERNS, World

Happening = Callable[[World, list[Wish]], Awaitable[None]]
YEAR_S = 365 * 86400.0
_MOODS = (Mode.OK, Mode.SLOW, Mode.FAILING, Mode.FAILING, Mode.THROTTLING, Mode.SILENT, Mode.FLAKY, Mode.FLAKY)


async def _events(world: World, _wishes: list[Wish]) -> None:
    world.publish(world.chance.choice((1, 3, 10, 40)))


async def _subscription(world: World, _wishes: list[Wish]) -> None:
    world.subscribe()


async def _mood(world: World, wishes: list[Wish]) -> None:
    world.endpoints.modes[world.chance.choice(wishes).id] = world.chance.choice(_MOODS)


async def _state(world: World, wishes: list[Wish]) -> None:
    wish = world.change(replace(world.chance.choice(wishes), state=world.chance.choice((PAUSED, PAUSED, DISABLED))))
    # The subscription becomes active again soon, or later.
    world.loop.call_later(world.chance.choice((0.01, 0.1, 10.0)) * world.chance.random(), world.activate, wish.id)


async def _consumer_pause(world: World, wishes: list[Wish]) -> None:
    consumer_id = world.chance.choice(wishes).consumer_id
    world.pause_consumer(consumer_id, paused=True)
    resume = partial(world.pause_consumer, consumer_id, paused=False)
    world.loop.call_later(world.chance.choice((0.01, 0.1, 10.0)) * world.chance.random(), resume)


async def _types(world: World, wishes: list[Wish]) -> None:
    world.change(replace(world.chance.choice(wishes), types=world.chance.choice(PATTERNS)))


async def _sink(world: World, wishes: list[Wish]) -> None:
    world.change(replace(world.chance.choice(wishes), sink=f"https://consumer.example/hooks/{world.chance.randrange(9)}"))


async def _ordering(world: World, wishes: list[Wish]) -> None:
    wish = world.chance.choice(wishes)
    world.change(replace(wish, is_ordered=not wish.is_ordered))


async def _deletion(world: World, wishes: list[Wish]) -> None:
    if len(wishes) > 2:
        world.delete(world.chance.choice(wishes).id)


async def _restart(world: World, wishes: list[Wish]) -> None:
    await world.stop(crash=world.chance.random() < 0.7)
    if world.chance.random() < 0.3:
        await _sink(world, wishes)
    await world.start()


async def _log(world: World, _wishes: list[Wish]) -> None:
    world.lose_log()


async def _registry(world: World, _wishes: list[Wish]) -> None:
    world.lose_registry()


async def _registry_restart(world: World, _wishes: list[Wish]) -> None:
    world.registry.restart()
    world.registry_back_at = world.loop.time() + 4.0


async def _stalled_watch(world: World, wishes: list[Wish]) -> None:
    """Let the watch stall while a user changes a subscription and publishes events as soon as the change is answered."""
    world.telling.append(world.loop.create_task(_change_in_a_stall(world, world.chance.choice(wishes).id)))


async def _change_in_a_stall(world: World, subscription_id: str) -> None:
    world.publish(1)
    await asyncio.sleep(0.1 * world.chance.random())
    stall_s = 2.0 * world.chance.random()
    world.registry.stalled_until = world.loop.time() + stall_s
    world.registry_back_at = world.registry.stalled_until + 4.0
    if (wish := world.registry.wishes.get(subscription_id)) is not None:
        world.change(replace(wish, types=world.chance.choice(PATTERNS)))
    await world.registry.told(world.registry.revision)
    # Later than the answer, so that the change certainly governs these events.
    await asyncio.sleep(0.001)
    world.publish(4)


async def _registry_copy(world: World, _wishes: list[Wish]) -> None:
    world.copy = world.registry.copied()


async def _registry_put_back(world: World, _wishes: list[Wish]) -> None:
    """Put the older copy back, if there is one, and make as many changes at once as were lost."""
    if world.copy is None:
        return
    copy, before, lost = world.copy, world.registry.wishes, world.registry.revision - world.copy.revision
    world.registry.put_back(copy)
    world.registry_back_at = world.loop.time() + 4.0
    for subscription_id in sorted(before.keys() | copy.wishes.keys()):
        wish = copy.wishes.get(subscription_id)
        if wish != before.get(subscription_id):
            world.note_version(subscription_id, wish)
            # A sink that returns after another sink counts as a new sink.
            world.endpoints.forget_pauses(subscription_id)
    for number in range(lost):
        wishes = list(world.registry.wishes.values())
        if number == 0 or not wishes:
            world.subscribe()
        else:
            world.change(replace(world.chance.choice(wishes), types=world.chance.choice(PATTERNS)))


async def _freeze(world: World, wishes: list[Wish]) -> None:
    world.freeze(world.chance.choice((0.3, 0.9, 2.0, 60.0)))
    # The other processes go on during the freeze.
    if world.chance.random() < 0.5:
        await _deletion(world, wishes)
    if world.chance.random() < 0.3:
        world.lose_registry()


async def _wall_clock(world: World, _wishes: list[Wish]) -> None:
    world.set_clock_ahead(world.chance.choice((YEAR_S, YEAR_S, 3600.0, -60.0)), 30.0 * world.chance.random())


async def _compaction(world: World, _wishes: list[Wish]) -> None:
    world.registry.compact()


async def _disk(world: World, _wishes: list[Wish]) -> None:
    await world.fill_disk(full=world.chance.random() < 0.3)


async def _trim(world: World, _wishes: list[Wish]) -> None:
    world.trim()


async def _slowness(world: World, _wishes: list[Wish]) -> None:
    world.loop.slowness = world.chance.choice((1.0, 1.0, 10.0, 50.0))


HAPPENINGS: dict[Happening, int] = {
    _events: 6,
    _mood: 5,
    _state: 2,
    _disk: 2,
    _subscription: 1,
    _types: 1,
    _sink: 1,
    _ordering: 1,
    _deletion: 1,
    _restart: 1,
    _log: 1,
    _registry: 1,
    _registry_restart: 1,
    _stalled_watch: 1,
    _registry_copy: 1,
    _registry_put_back: 1,
    _freeze: 2,
    _wall_clock: 1,
    _compaction: 1,
    _trim: 1,
    _slowness: 1,
}
WITH_PAUSED_CONSUMERS: dict[Happening, int] = {**HAPPENINGS, _consumer_pause: 3}
