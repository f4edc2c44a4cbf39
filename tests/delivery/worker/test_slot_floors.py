"""Slot floors: a worker routes nothing again of slots that are recorded further than it reads, and loses nothing above the floor."""

import asyncio
import contextlib
import json
from dataclasses import replace

import pytest

from services.delivery.ledger.protocol import GroupCursor, ShardCursor
from services.delivery.model import State
from services.delivery.worker.slot_floors import SlotFloors
from services.eventlog.record import Record, ShardPosition
from services.runtime.database import connect
from tests.delivery.conftest import Play
from tests.delivery.ledger.stores import SqliteStore
from tests.simulation.flush_kills import FlushKills, Side
from tests.simulation.registry import PAUSED, Wish
from tests.simulation.scenarios import ALPHA, deliveries, started
from tests.simulation.world import CONSUMERS, World

LOW, HIGH = range(128), range(128, 256)
# The slot of ALPHA is 0xaa, that of GAMMA 0x11; both want the same events.
GAMMA = Wish("sub_" + "1" * 32, CONSUMERS[1], ALPHA.types)


def floors_at(position: int, through: str = "") -> SlotFloors:
    floors = SlotFloors()
    groups = [GroupCursor(1, (ShardCursor(0, 10, "evt_j", ""),)), GroupCursor(2, (ShardCursor(0, position, "evt_t", through),))]
    floors.take_over(groups, [tuple(LOW), tuple(HIGH)])
    return floors


def test_without_floors_all_slots_are_at_the_main_place() -> None:
    floors = SlotFloors()
    floors.take_over([GroupCursor(1, (ShardCursor(0, 10, "evt_j", ""),))], [tuple(range(256))])
    assert (floors.of_slot, floors.main_slots, floors.slots, list(floors)) == ({}, (), (), [])
    assert floors.passed(ALPHA.id, 7) == 7


def test_a_worker_of_some_slots_names_them() -> None:
    floors = SlotFloors()
    floors.take_over([GroupCursor(1, (ShardCursor(0, 10, "evt_j", ""),))], [tuple(LOW)])
    assert (floors.main_slots, floors.slots) == (tuple(LOW), tuple(LOW))


@pytest.mark.parametrize(("through", "passed"), [("", 20), (ALPHA.id, 20), ("sub_" + "b" * 32, 20), ("sub_" + "9" * 32, 19)])
def test_a_subscription_has_the_event_at_the_floor_behind_it_if_the_floor_is_recorded_through_it(through: str, passed: int) -> None:
    floors = floors_at(20, through)
    assert (floors.passed(ALPHA.id, 12), floors.passed(ALPHA.id, 25), floors.passed(GAMMA.id, 12)) == (passed, 25, 12)


@pytest.mark.parametrize(
    ("position", "through", "joins"),
    [(19, "", []), (20, "sub_" + "8" * 32, []), (20, "sub_" + "9" * 32, [2]), (20, "", [2]), (21, "", [2])],
)
def test_a_floor_joins_once_the_main_place_has_reached_it(position: int, through: str, joins: list[int]) -> None:
    floors = floors_at(20, "sub_" + "9" * 32)
    assert floors.main_slots == tuple(LOW)
    assert floors.reached_at(position, through) == joins
    floors.join(joins)
    assert (bool(floors.of_slot), floors.main_slots) == (not joins, () if joins else tuple(LOW))


def take_back_low_slots(world: World, store: SqliteStore) -> None:
    """Put the lower slots at the beginning of the log, as if from another ledger. The upper slots stay where the ledger stands."""
    with contextlib.closing(connect(store.path)) as connection:
        ((positions, events, through),) = connection.execute("SELECT positions, events, through FROM groups").fetchall()
        cursor = ShardCursor(0, *(json.loads(each)[0] for each in (positions, events, through)))
        connection.execute("""UPDATE groups SET positions = '[0]', events = '[""]', through = '[""]'""")
    store.split(GroupCursor(2, (cursor,)), HIGH)
    world.log.recorded |= dict.fromkeys(LOW, 0) | dict.fromkeys(HIGH, cursor.position - 1)
    world.log.released |= world.log.recorded


async def cut(world: World, store: SqliteStore, count: int = 20) -> list[Record]:
    """Deliver events to ALPHA, then start a worker that must still route them for GAMMA; return the events."""
    await started(world, ALPHA)
    records = world.publish(count, "alpha")
    await world.settle(60.0)
    await world.stop(crash=False)
    take_back_low_slots(world, store)
    world.change(GAMMA)
    return records


def sent(world: World, record: Record, wish: Wish) -> int:
    return sum(each.key[:2] == (record.event_id, wish.id) for each in world.endpoints.log)


def test_events_that_the_other_ledger_has_recorded_are_not_routed_again_and_the_rest_is(play: Play, store: SqliteStore) -> None:
    """The slots join the main place in the ledger, and the log learns the place of each slot meanwhile."""

    async def scenario(world: World) -> None:
        records = await cut(world, store)
        world.registry.pause_system(paused=True)
        await world.start()
        await asyncio.sleep(10.0)
        floors = world.at_work().worker.lane_modes.floors
        assert [floor.place for floor in floors] == [ShardPosition(0, 20, records[-1].event_id)]
        assert [{world.log.recorded[slot] for slot in slots} for slots in (LOW, HIGH)] == [{0}, {20}]
        world.registry.pause_system(paused=False)
        await asyncio.sleep(30.0)
        new = world.publish(5, "alpha")
        await world.settle(60.0)
        await asyncio.sleep(30.0)
        assert deliveries(world, [*records, *new], ALPHA) == deliveries(world, [*records, *new], GAMMA) == [State.DELIVERED] * 25
        assert {sent(world, record, wish) for record in (*records, *new) for wish in (ALPHA, GAMMA)} == {1}
        assert list(floors) == []
        assert store.rows("SELECT group_id, count(*) FROM slots GROUP BY group_id") == [(1, 256)]
        assert set(world.log.released.values()) == {25}

    play(scenario, HOOKTIDE_HOUSEKEEPING_SECONDS="5")


@pytest.mark.parametrize("side", Side)
@pytest.mark.parametrize("number", range(1, 10))
def test_a_crash_at_any_flush_neither_loses_nor_repeats_events_below_a_floor(
    play: Play, store: SqliteStore, number: int, side: Side
) -> None:
    async def scenario(world: World) -> None:
        records = await cut(world, store, 12)
        world.routed_min = world.routed_max = 3  # a few events a flush
        kills = FlushKills({number: side})
        kills.watch(world.loop)
        await world.start()
        new = world.publish(6, "alpha")
        await world.settle(600.0)
        assert kills.flushes > number
        assert world.crashes == 1
        assert deliveries(world, [*records, *new], ALPHA) == deliveries(world, [*records, *new], GAMMA) == [State.DELIVERED] * 18
        assert {sent(world, record, ALPHA) for record in records} == {1}

    play(scenario)


async def cut_behind(world: World, store: SqliteStore) -> list[Record]:
    """Start a worker that reaches ALPHA's floor after some seconds; ALPHA's lane owes all events from the tenth on. Return those."""
    await started(world, ALPHA)
    world.publish(10, "alpha")
    await world.settle(60.0)
    world.change(replace(ALPHA, state=PAUSED))
    await asyncio.sleep(5.0)
    waiting = world.publish(300, "alpha")
    await asyncio.sleep(30.0)
    assert store.ranges()
    await world.stop(crash=False)
    take_back_low_slots(world, store)
    world.change(GAMMA)
    world.log.batch_s = 0.05
    return waiting


def test_a_lane_that_was_behind_gets_what_it_owes_up_to_its_floor_and_above(play: Play, store: SqliteStore) -> None:
    """The former worker has passed the lane by up to the floor. So the range reaches that far, wherever this worker reads."""

    async def scenario(world: World) -> None:
        waiting = await cut_behind(world, store)
        world.change(ALPHA)
        await world.start()
        await asyncio.sleep(2.5)
        assert world.at_work().worker.lane_modes.floors.of_slot
        new = world.publish(5, "alpha")
        await world.settle(600.0)
        assert {sent(world, record, wish) for record in (*waiting, *new) for wish in (ALPHA, GAMMA)} == {1}

    play(scenario, HOOKTIDE_DELIVERY_LANE_PENDING_MAX="50")


def test_a_subscription_deleted_while_events_below_its_floor_are_routed_ends_all_that_it_owed(play: Play, store: SqliteStore) -> None:
    async def scenario(world: World) -> None:
        waiting = await cut_behind(world, store)
        await world.start()
        await asyncio.sleep(2.5)
        assert world.at_work().worker.lane_modes.floors.of_slot
        world.delete(ALPHA.id)
        await world.settle(600.0)
        assert deliveries(world, waiting, ALPHA) == [State.CANCELLED] * 300

    play(scenario, HOOKTIDE_DELIVERY_LANE_PENDING_MAX="50")


def test_events_that_the_log_does_not_have_at_a_floor_stop_routing(play: Play, store: SqliteStore) -> None:
    """A log that was restored without them would give their positions to other events. A repair goes on with each slot's own events."""

    async def scenario(world: World) -> None:
        records = await cut(world, store)
        for record in records[12:]:
            del world.log.records[record.position]
        world.log.head = 12
        await asyncio.sleep(5.0)
        new = world.publish(10, "alpha")
        await world.start()
        await asyncio.sleep(30.0)
        worker = world.at_work().worker
        assert "routing is stopped" in str(worker.why_not_ready())
        assert deliveries(world, new, GAMMA) == []
        assert worker.repair is not None
        report = await worker.repair.run(None, dry_run=False)
        assert (report.routed, report.lost) == (22, 0)
        await world.settle(600.0)
        assert worker.why_not_ready() is None
        assert {sent(world, record, wish) for record in new for wish in (ALPHA, GAMMA)} == {1}
        assert {sent(world, record, ALPHA) for record in records} == {1}
        assert {sent(world, record, GAMMA) for record in records[:12]} == {1}

    play(scenario)


def test_a_subscription_deleted_below_its_floor_ends_all_that_it_owed(play: Play, store: SqliteStore) -> None:
    async def scenario(world: World) -> None:
        await started(world, ALPHA)
        world.change(replace(ALPHA, state=PAUSED))
        await asyncio.sleep(5.0)
        waiting = world.publish(30, "alpha")
        await asyncio.sleep(30.0)
        await world.stop(crash=False)
        take_back_low_slots(world, store)
        world.log.set_reachable(reachable=False)
        await world.start()
        await asyncio.sleep(5.0)
        world.delete(ALPHA.id)
        await asyncio.sleep(5.0)
        world.log.set_reachable(reachable=True)
        await world.settle(600.0)
        assert deliveries(world, waiting, ALPHA) == [State.CANCELLED] * 30

    play(scenario, HOOKTIDE_DELIVERY_LANE_PENDING_MAX="5")
