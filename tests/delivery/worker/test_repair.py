"""Repair in virtual time: the log or the ledger was restored or made anew, and delivery goes on after the operator's repair."""

import asyncio
from dataclasses import replace

from services.delivery.model import State, delivery_id
from services.delivery.worker.repair import RepairReport
from services.eventlog.record import Record
from services.runtime.ids import SLOTS
from tests.delivery.conftest import Play
from tests.simulation.registry import PAUSED
from tests.simulation.scenarios import ALPHA, deliveries, started
from tests.simulation.world import World


async def repaired(world: World, from_ms: int | None = None, *, dry_run: bool = False) -> RepairReport:
    repair = world.at_work().worker.repair
    assert repair is not None
    return await repair.run(from_ms, dry_run=dry_run)


async def restarted(world: World) -> None:
    """Start a worker that finds that the log and the ledger do not fit."""
    await world.start()
    await asyncio.sleep(30.0)
    assert "routing is stopped" in str(world.at_work().worker.why_not_ready())


def sent(world: World, record: Record) -> int:
    """Return how many requests there were for an event."""
    return sum(each.key[0] == record.event_id for each in world.endpoints.log)


def make_log_anew(world: World) -> None:
    world.log.records.clear()
    world.log.head, world.log.log_id = 0, "another"
    world.log.recorded, world.log.released = dict.fromkeys(range(SLOTS), 0), dict.fromkeys(range(SLOTS), 0)


def test_after_a_log_was_made_anew_its_events_are_routed_and_none_twice(play: Play) -> None:
    """Unfinished deliveries of the old log whose events were copied are delivered, though other events have their positions."""

    async def scenario(world: World) -> None:
        await started(world, ALPHA)
        done = world.publish(20, "alpha")
        await world.settle(60.0)
        world.change(replace(ALPHA, state=PAUSED))
        waiting = world.publish(20, "alpha")
        await asyncio.sleep(30.0)  # the log wants all its space back, so the ledger copies the waiting events
        await world.stop(crash=True)
        make_log_anew(world)
        new = world.publish(60, "alpha")
        await restarted(world)
        # The ledger's releases belonged to the old log.
        assert set(world.log.released.values()) == {0}
        plan = await repaired(world, dry_run=True)
        assert (plan.routed, plan.repeated, plan.skipped, plan.lost) == (60, 0, 0, 0)
        assert plan.stopped.startswith("routing is stopped: the log is not the log that the ledger has followed")
        assert deliveries(world, new) == []
        assert await repaired(world) == plan
        assert world.at_work().worker.why_not_ready() is None
        await asyncio.sleep(30.0)  # the new deliveries wait as well, and their events are copied beside the old ones
        world.change(ALPHA)
        await asyncio.sleep(600.0)
        assert deliveries(world, [*waiting, *new]) == [State.DELIVERED] * 80
        assert all(sent(world, record) == 1 for record in done)
        assert await repaired(world) == RepairReport("")
        # From here on the new log belongs to the ledger.
        await world.stop(crash=True)
        await world.start()
        await asyncio.sleep(30.0)
        assert world.at_work().worker.why_not_ready() is None
        more = world.publish(5, "alpha")
        await asyncio.sleep(60.0)
        assert deliveries(world, more) == [State.DELIVERED] * 5

    play(scenario, HOOKTIDE_DELIVERY_LANE_PENDING_MAX="100", HOOKTIDE_HOUSEKEEPING_SECONDS="5")


def test_after_a_log_was_restored_what_is_newer_than_the_ledger_is_routed_and_nothing_else(play: Play) -> None:
    async def scenario(world: World) -> None:
        await started(world, ALPHA)
        before = world.publish(30, "alpha")
        await world.settle(60.0)
        copied, head = dict(world.log.records), world.log.head
        lost = world.publish(30, "alpha")
        await world.settle(60.0)
        await world.stop(crash=False)
        world.log.records, world.log.head = copied, head
        await asyncio.sleep(5.0)
        new = world.publish(50, "alpha")
        await restarted(world)
        await asyncio.sleep(60.0)
        assert deliveries(world, new) == []
        plan = await repaired(world)
        assert (plan.routed, plan.repeated, plan.skipped) == (50, 0, 0)
        await asyncio.sleep(60.0)
        assert deliveries(world, new) == [State.DELIVERED] * 50
        assert all(sent(world, record) == 1 for record in (*before, *lost, *new))

    play(scenario)


def test_after_a_ledger_was_restored_what_it_does_not_know_is_routed_again_and_said_before(play: Play) -> None:
    async def scenario(world: World) -> None:
        await started(world, ALPHA)
        world.publish(30, "alpha")
        await world.settle(60.0)
        await world.stop(crash=False)
        world.store.back_up()
        await world.start()
        since = world.publish(30, "alpha")
        await world.settle(60.0)
        await asyncio.sleep(30.0)  # delivery reports to the log that it needs these events no more
        await world.stop(crash=False)
        world.store.restore()
        world.log.records |= {record.position: record for record in since}  # the log has not trimmed them yet
        await restarted(world)
        plan = await repaired(world, dry_run=True)
        assert (plan.routed, plan.repeated, plan.skipped, plan.lost) == (30, 30, 0, 0)
        # Or the operator decides otherwise.
        late_ms = since[-1].accepted_ms + 1
        skipping = await repaired(world, late_ms, dry_run=True)
        assert (skipping.routed, skipping.repeated, skipping.skipped) == (0, 0, 0)
        await repaired(world)
        await asyncio.sleep(60.0)
        assert all(sent(world, record) == 2 for record in since)

    play(scenario, HOOKTIDE_HOUSEKEEPING_SECONDS="5")


def test_a_new_ledger_begins_anew_however_often_it_is_interrupted(play: Play) -> None:
    """Events that the old ledger had released are needed again, and the new ledger is not taken for an older copy of it."""

    async def scenario(world: World) -> None:
        await started(world, ALPHA)
        records = world.publish(30, "alpha")
        await world.settle(60.0)
        await asyncio.sleep(30.0)
        await world.stop(crash=False)
        world.store.remove()
        world.log.records |= {record.position: record for record in records}  # the log has not trimmed them yet
        for _ in range(5):
            await world.start()
            await asyncio.sleep(0.5)
            world.lose_log()
            await asyncio.sleep(0.5)
            await world.stop(crash=True)
        await world.start()
        await asyncio.sleep(60.0)
        assert world.at_work().worker.why_not_ready() is None
        assert deliveries(world, records) == [State.DELIVERED] * 30

    play(scenario, HOOKTIDE_HOUSEKEEPING_SECONDS="5")


def test_from_a_time_on_events_are_routed_again_or_left_out(play: Play) -> None:
    async def scenario(world: World) -> None:
        await started(world, ALPHA)
        world.publish(10, "alpha")
        await world.settle(60.0)
        await world.stop(crash=False)
        make_log_anew(world)
        early = world.publish(10, "alpha")
        await asyncio.sleep(100.0)
        late = world.publish(10, "alpha")
        await restarted(world)
        middle_ms = (early[-1].accepted_ms + late[0].accepted_ms) // 2
        plan = await repaired(world, middle_ms)
        assert (plan.routed, plan.repeated, plan.skipped) == (10, 0, 10)
        await asyncio.sleep(60.0)
        assert deliveries(world, late) == [State.DELIVERED] * 10
        assert deliveries(world, early) == []

    play(scenario)


def test_a_repair_moves_rows_out_of_the_way_each_time(play: Play) -> None:
    """However often the log is made anew, no delivery takes the place of another."""

    async def scenario(world: World) -> None:
        await started(world, ALPHA)
        world.change(replace(ALPHA, state=PAUSED))
        waiting: list[Record] = []
        for _ in range(3):
            waiting += world.publish(10, "alpha")
            await asyncio.sleep(30.0)
            await world.stop(crash=True)
            make_log_anew(world)
            await restarted(world)
            await repaired(world)
            await asyncio.sleep(10.0)
        assert len({(row.shard, row.position) for row in world.open_rows()}) == len(world.open_rows()) == 30
        assert len(world.store.copies()) == 30
        world.change(ALPHA)
        await asyncio.sleep(600.0)
        states = world.states()
        assert [states[delivery_id(record.event_id, ALPHA.id)] for record in waiting] == [State.DELIVERED] * 30

    play(scenario, HOOKTIDE_DELIVERY_LANE_PENDING_MAX="100", HOOKTIDE_HOUSEKEEPING_SECONDS="5")
