"""A subscription whose sink is changed, in virtual time: nothing that the old sink did counts for the new one."""

import asyncio
from dataclasses import replace

import pytest

from services.delivery.model import State
from tests.delivery.conftest import Play
from tests.simulation.endpoints import Mode
from tests.simulation.registry import DISABLED
from tests.simulation.scenarios import ALPHA, deliveries, finished, started
from tests.simulation.world import World

NEW = "https://consumer.example/new"
LONG = {
    "HOOKTIDE_DELIVERY_BREAKER_SECONDS": "300",
    "HOOKTIDE_DELIVERY_RETRY_DELAYS_SECONDS": "600,600",
    "HOOKTIDE_DELIVERY_LANE_PENDING_MAX": "100",
    "HOOKTIDE_DELIVERY_LANE_IN_FLIGHT_MAX": "16",
    "HOOKTIDE_DELIVERY_IN_FLIGHT_MAX": "64",
}


async def sent_at_once(world: World, count: int = 5) -> None:
    """Check that new events are delivered without delay."""
    records = world.publish(count, "alpha")
    await asyncio.sleep(0.5)
    assert deliveries(world, records) == [State.DELIVERED] * count
    assert {taken.url for taken in world.endpoints.log[-count:]} == {NEW}


async def troubled(world: World, mode: Mode) -> None:
    """Let the old sink do something after which it gets no requests for long."""
    await started(world, ALPHA)
    world.endpoints.modes[ALPHA.id] = mode
    world.publish(12, "alpha")
    await asyncio.sleep(0.5)
    waiting = world.publish(1, "alpha")
    await asyncio.sleep(0.4)
    assert deliveries(world, waiting) == []


@pytest.mark.parametrize("mode", [Mode.FAILING, Mode.THROTTLING, Mode.GONE], ids=["open breaker", "pause asked for", "gone"])
def test_it_is_sent_to_at_once(play: Play, mode: Mode) -> None:
    """Whatever held the old sink's deliveries back; the deliveries that were held back go out too."""

    async def scenario(world: World) -> None:
        world.registry.hears_of_gone = False
        await troubled(world, mode)
        world.endpoints.modes.clear()
        held_back = len(world.open_rows())
        world.change(replace(ALPHA, sink=NEW))
        await sent_at_once(world)
        # A delivery that has failed waits for its own time; a delivery that was never tried does not.
        assert len(world.open_rows()) < held_back
        world.registry.hears_of_gone = True
        await finished(world, within_s=3600.0)

    play(scenario, **LONG)


def test_it_may_be_changed_while_the_subscription_is_off(play: Play) -> None:
    async def scenario(world: World) -> None:
        await troubled(world, Mode.FAILING)
        world.endpoints.modes.clear()
        world.change(replace(ALPHA, state=DISABLED))
        await asyncio.sleep(0.1)
        world.change(replace(ALPHA, state=DISABLED, sink=NEW))
        await asyncio.sleep(0.1)
        world.change(replace(ALPHA, sink=NEW))
        await asyncio.sleep(0.1)
        await sent_at_once(world)
        await finished(world, within_s=3600.0)

    play(scenario, **LONG)


@pytest.mark.parametrize("mode", [Mode.SILENT, Mode.LATE_GONE, Mode.LATE_THROTTLING])
def test_late_answers_of_the_old_sink_are_not_the_new_ones(play: Play, mode: Mode) -> None:
    """A dozen attempts were under way when the sink was changed, and fail later."""

    async def scenario(world: World) -> None:
        await started(world, ALPHA)
        world.endpoints.modes[ALPHA.id] = mode
        world.publish(12, "alpha")
        await asyncio.sleep(0.5)
        world.endpoints.modes.clear()
        world.change(replace(ALPHA, sink=NEW))
        await asyncio.sleep(20.0)
        assert world.registry.told_gone == []
        await sent_at_once(world)
        await finished(world, within_s=3600.0)

    play(scenario, **LONG)


def test_a_late_success_of_the_old_sink_does_not_speak_for_the_new_one(play: Play) -> None:
    """The new sink's breaker opens all the same, since the new sink is the one that fails."""

    async def scenario(world: World) -> None:
        await started(world, ALPHA)
        world.endpoints.modes[ALPHA.id], world.endpoints.slow_s = Mode.SLOW, 10.0
        world.publish(1, "alpha")
        await asyncio.sleep(0.5)
        world.endpoints.modes[ALPHA.id] = Mode.FAILING
        world.change(replace(ALPHA, sink=NEW))
        await asyncio.sleep(0.1)
        world.publish(9, "alpha")
        await asyncio.sleep(12.0)
        failed = world.endpoints.requests
        world.publish(20, "alpha")
        await asyncio.sleep(1.0)
        # The tenth failure in a row opens the breaker; requests up to the concurrency limit are sent before the worker hears of it.
        assert world.endpoints.requests <= failed + 16
        world.publish(20, "alpha")
        await asyncio.sleep(100.0)
        assert world.endpoints.requests <= failed + 16
        world.endpoints.modes.clear()
        await finished(world, within_s=3600.0)

    play(scenario, **LONG)


def test_a_retry_after_of_the_old_sink_holds_no_delivery_back_that_hears_of_it_after_the_change(play: Play) -> None:
    """The delivery waits for the delay of the retry policy, and no longer."""

    async def scenario(world: World) -> None:
        await started(world, ALPHA)
        world.endpoints.modes[ALPHA.id] = Mode.LATE_THROTTLING
        records = world.publish(3, "alpha")
        await asyncio.sleep(0.5)
        world.endpoints.modes.clear()
        world.change(replace(ALPHA, sink=NEW))
        await asyncio.sleep(30.0)
        assert deliveries(world, records) == [State.DELIVERED] * 3
        await finished(world)

    play(scenario, **{**LONG, "HOOKTIDE_DELIVERY_RETRY_DELAYS_SECONDS": "1,1"})
