"""Quiet progress: a worker of some slots writes its progress once a second while no event concerns it, and sooner if somebody waits."""

import asyncio
from pathlib import Path

import pytest

from services.delivery.dispatch.owed_ranges import is_behind
from services.delivery.ledger.sqlite.ledger_cut import ensure_cut
from services.delivery.model import State
from services.eventlog.record import Record
from tests.delivery.conftest import Play
from tests.delivery.ledger.stores import SqliteStore
from tests.simulation.flush_kills import FlushKills
from tests.simulation.registry import Wish
from tests.simulation.scenarios import deliveries, started
from tests.simulation.world import CONSUMERS, World

# Its slot is 0x11, so it belongs to the first of two workers.
GAMMA = Wish("sub_" + "1" * 32, CONSUMERS[1], ("alpha",))


@pytest.fixture
def half(tmp_path: Path, store: SqliteStore) -> SqliteStore:
    """The ledger of the first of two workers."""
    ensure_cut(tmp_path / "delivery.db", 2)
    return store


async def started_half(world: World, *wishes: Wish) -> FlushKills:
    """Start the first of two workers; return what counts its flushes."""
    world.worker_slots = range(128)
    await started(world, *wishes)
    flushes = FlushKills({})
    flushes.watch(world.loop)
    return flushes


async def trickle(world: World, event_type: str, seconds: int) -> list[Record]:
    """Publish a hundred events a second."""
    records: list[Record] = []
    for _ in range(seconds * 100):
        records += world.publish(1, event_type)
        await asyncio.sleep(0.01)
    return records


def test_events_that_do_not_concern_a_worker_cost_a_commit_a_second(play: Play, half: SqliteStore) -> None:
    async def scenario(world: World) -> None:
        flushes = await started_half(world, GAMMA)
        world.loop.slowness = 20.0  # events come while a flush is under way
        records = await trickle(world, "beta", 10)
        assert 5 <= flushes.flushes <= 12
        await asyncio.sleep(2.0)
        assert half.cursor().shards[0].position == records[-1].position

    play(scenario)


@pytest.mark.usefixtures("half")
def test_an_event_that_concerns_the_worker_is_recorded_without_delay(play: Play) -> None:
    async def scenario(world: World) -> None:
        await started_half(world, GAMMA)
        await trickle(world, "beta", 1)
        [wanted] = world.publish(1, "alpha")
        await asyncio.sleep(0.4)
        assert deliveries(world, [wanted], GAMMA) == [State.DELIVERED]

    play(scenario)


def test_a_worker_that_stops_has_recorded_its_progress(play: Play, half: SqliteStore) -> None:
    async def scenario(world: World) -> None:
        await started_half(world, GAMMA)
        records = await trickle(world, "beta", 1)
        await world.stop(crash=False)
        await world.start()
        assert half.cursor().shards[0].position == records[-1].position

    play(scenario)


@pytest.mark.usefixtures("half")
def test_a_lane_that_was_behind_joins_while_the_events_concern_only_it(play: Play) -> None:
    """Routing passes the lane by, so that no event makes the worker write anything but its progress."""

    async def scenario(world: World) -> None:
        await started_half(world, GAMMA)
        world.publish(300, "alpha")
        await trickle(world, "alpha", 4)
        modes = set[bool]()
        for _ in range(5):
            await trickle(world, "alpha", 1)
            lane = world.at_work().worker.dispatcher.lanes.find(GAMMA.id)
            modes.add(lane is not None and is_behind(lane.ranges))
        assert False in modes
        await world.settle(60.0)

    play(scenario, HOOKTIDE_DELIVERY_LANE_PENDING_MAX="20")
