"""Neighbours in virtual time: what one consumer's events notice of another's. Virtual time counts waits alone, not the machine's work."""

import asyncio
from dataclasses import replace

import pytest

from tests.delivery.conftest import Play
from tests.delivery.ledger.stores import SqliteStore
from tests.simulation.endpoints import Mode
from tests.simulation.registry import PAUSED, Wish
from tests.simulation.scenarios import ALPHA, started
from tests.simulation.world import CONSUMERS, World

VICTIM = Wish("sub_" + "c" * 32, CONSUMERS[1], ("victim",))
EVENTS, EVERY_S = 50, 0.5


async def _slowest_s(world: World, neighbour_events: int) -> float:
    """Publish events of both; return how long the slowest but one of the victim's waits for its request."""
    records = []
    for _ in range(EVENTS):
        world.publish(neighbour_events, "alpha")
        records += world.publish(1, "victim")
        await asyncio.sleep(EVERY_S)
    await asyncio.sleep(60.0)
    published = {each.record.event_id: each.at for each in world.published}
    sent = {taken.key[0]: taken.at for taken in reversed(world.endpoints.log) if taken.key[1] == VICTIM.id}
    waits = sorted(sent[record.event_id] - published[record.event_id] for record in records)
    return waits[-2]


@pytest.mark.parametrize("trouble", ["flood", "slow", "dead", "many dead"])
def test_a_consumer_notices_little_of_its_neighbour(play: Play, store: SqliteStore, trouble: str) -> None:
    """Whether the neighbour has 100 times as many events, endpoints that answer after 28 s, or endpoints that never answer."""
    waits: dict[bool, float] = {}

    def scenario(*, troubled: bool) -> None:
        async def run(world: World) -> None:
            await started(world, VICTIM, ALPHA)
            if troubled and trouble != "flood":
                for number in range(60 if trouble == "many dead" else 3):
                    wish = world.change(replace(ALPHA, id=f"sub_{number:032x}"))
                    world.endpoints.modes[wish.id] = Mode.SLOW if trouble == "slow" else Mode.SILENT
                world.endpoints.slow_s = 28.0
            await asyncio.sleep(1.0)
            count = 0 if not troubled else 100 if trouble == "flood" else 2
            waits[troubled] = await _slowest_s(world, count)
            await world.stop(crash=True)  # attempts of 28 s are under way

        settings = {"HOOKTIDE_DELIVERY_IN_FLIGHT_MAX": "100", "HOOKTIDE_DELIVERY_LANE_IN_FLIGHT_MAX": "16"}
        play(run, 1, HOOKTIDE_DELIVERY_LANE_PENDING_MAX="1000", **settings)

    scenario(troubled=False)
    store.remove()
    scenario(troubled=True)
    # What remains is the pace of routing: an event waits for those that came with it.
    assert waits[True] <= 1.2 * waits[False] + 0.05, waits


@pytest.mark.parametrize("consumer_id", [CONSUMERS[1], CONSUMERS[0]], ids=["of another consumer", "of the same consumer"])
def test_fresh_events_do_not_wait_for_a_lane_that_catches_up(play: Play, store: SqliteStore, consumer_id: str) -> None:
    """The lane owes thousands of events all the while."""
    victim, waits = replace(VICTIM, consumer_id=consumer_id), dict[bool, float]()

    def scenario(*, catches_up: bool) -> None:
        async def run(world: World) -> None:
            await started(world, victim, replace(ALPHA, state=PAUSED))
            if catches_up:
                world.publish(4000, "alpha")
                await asyncio.sleep(20.0)
                world.endpoints.modes[ALPHA.id], world.endpoints.slow_s = Mode.SLOW, 1.0
                world.activate(ALPHA.id)
            waits[catches_up] = await _slowest_s(world, 0)
            assert bool(world.store.ranges()) == catches_up
            assert bool([taken for taken in world.endpoints.log if taken.key[1] == ALPHA.id]) == catches_up
            await world.stop(crash=True)  # attempts are under way

        settings = {"HOOKTIDE_DELIVERY_IN_FLIGHT_MAX": "100", "HOOKTIDE_DELIVERY_LANE_IN_FLIGHT_MAX": "16"}
        play(run, 1, HOOKTIDE_DELIVERY_LANE_PENDING_MAX="100", **settings)

    scenario(catches_up=False)
    store.remove()
    scenario(catches_up=True)
    assert waits[True] <= 1.2 * waits[False] + 0.05, waits
