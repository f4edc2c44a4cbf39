"""Bug scenarios: directed scenarios that catch the bugs which few seeds meet, because several rare things must come together.

Law: without the bug, every invariant holds in its scenario.
"""

from collections.abc import Callable
from dataclasses import replace

from services.delivery.worker.past_starts import RUNNING
from tests.simulation.endpoints import Mode
from tests.simulation.registry import ACTIVE, PAUSED, Wish
from tests.simulation.tiny_settings import DELAYS_S
from tests.simulation.world import CONSUMERS, World

_EARLY = Wish("sub_" + "a" * 32, CONSUMERS[0])
_LATE = Wish("sub_" + "b" * 32, CONSUMERS[1], start_ms=0, state=PAUSED)
"""It wants all past events, and keeps owing them, since it is paused."""
_STEP_S, _STEPS_MAX = 0.1, 3000


async def start_after_a_release(world: World) -> None:
    """A subscription starts with events that were released before, and owes them when the log drops what it may."""
    await _all_released(world)
    world.change(_LATE)
    await _until(world, lambda: _is_started(world))
    world.trim()
    world.check()
    world.activate(_LATE.id)


async def release_before_a_start_is_written(world: World) -> None:
    """The flush that writes a start takes so long that retention goes on between the moment when the start is found and its commit."""
    await _all_released(world)
    # The pass of retention that has released the events ends; one that has to wait for the slow flush would release nothing meanwhile.
    await world.passes(5.0)
    # The next pass comes in this time.
    flush_s = 2 * world.settings.housekeeping_seconds
    world.loop.slow_jobs["flush"] = (flush_s, 0.001)
    world.change(_LATE)
    await _until(world, lambda: world.log.lowest_released == 0)
    await world.passes(0.9 * flush_s)
    if _is_started(world):
        raise _NotMetError
    world.trim()
    await _until(world, lambda: _is_started(world))
    world.loop.slow_jobs.clear()
    world.trim()
    world.check()
    world.activate(_LATE.id)


async def sink_changed_while_no_worker_runs(world: World) -> None:
    """A delivery waits for the longest delay, and its sink changes before the next worker starts."""
    world.change(_EARLY)
    world.endpoints.modes[_EARLY.id] = Mode.FAILING
    await world.start()
    await world.ready()
    world.publish(1, "order.paid")
    await _until(world, lambda: any(row.attempt_count == len(DELAYS_S) for row in world.open_rows()))
    await world.stop(crash=False)
    world.change(replace(_EARLY, sink="https://consumer.example/hooks/other"))
    await world.start()


async def deletion_during_a_page(world: World) -> None:
    """A subscription is deleted while a page of what it owes is read."""
    await _all_released(world)
    page_s = world.log.page_s = 5.0
    world.change(replace(_LATE, state=ACTIVE))
    await _until(world, lambda: _is_started(world))
    await world.passes(0.4 * page_s)
    if any(_LATE.id == key[1] for key in world.endpoints.sent):
        raise _NotMetError
    world.delete(_LATE.id)
    # The page comes.
    await world.passes(2 * page_s)
    world.check()
    world.log.page_s = 0.0


async def pause_before_a_flush(world: World) -> None:
    """A subscription is paused while events wait in its queue, and the flush of their chunk is not over."""
    world.change(_EARLY)
    await world.start()
    await world.ready()
    # No queue empties before the pause.
    world.endpoints.modes[_EARLY.id] = Mode.SILENT
    world.loop.slow_jobs["flush"] = (3.0, 0.001)
    world.publish(40, "order.paid")
    await world.passes(1.0)
    if not any(lane.queue for lane in world.at_work().worker.dispatcher.lanes):
        raise _NotMetError
    world.change(replace(_EARLY, state=PAUSED))
    await world.passes(20.0)
    world.check()
    world.loop.slow_jobs.clear()


async def _all_released(world: World) -> None:
    """Start a worker, and let it finish some events and release them. The log drops none of them yet."""
    world.change(_EARLY)
    await world.start()
    await world.ready()
    world.publish(10, "order.paid")
    await _until(world, lambda: world.log.lowest_released == world.log.head)


def _is_started(world: World) -> bool:
    return any(row.subscription_id == _LATE.id and row.state == RUNNING for row in world.store.jobs())


async def _until(world: World, holds: Callable[[], bool]) -> None:
    for _ in range(_STEPS_MAX):
        if holds():
            return
        await world.passes(_STEP_S)
        world.check()
    raise _NotMetError


class _NotMetError(Exception):
    """A scenario does not reach its situation. No invariant is broken."""
