"""Retention loop: what expires, what is copied, and what a wrong clock must not drop; against a real log, or in virtual time."""

import asyncio
import contextlib
import json
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from services.delivery.ledger.protocol import Flush, Ledger
from services.delivery.model import State
from services.delivery.notices.notice import EXPIRING, time_text
from services.delivery.subscriptions.replica import Replica
from services.delivery.worker.lane_modes import LaneModes
from services.delivery.worker.recorder import Recorder
from services.delivery.worker.retention_loop import RetentionLimits, RetentionLoop
from services.eventlog.record import ShardPosition
from services.eventlog.sqlite.log import SqliteEventLog
from services.runtime.clock import SystemClock
from tests.delivery.conftest import Play
from tests.delivery.dispatch.dispatching import Dispatching
from tests.delivery.ledger.deliveries import cursor_at, unfinished
from tests.delivery.ledger.stores import SqliteStore
from tests.simulation.endpoints import Mode
from tests.simulation.registry import PAUSED
from tests.simulation.scenarios import ALPHA, BETA, deliveries, finished, started
from tests.simulation.world import World
from tests.support.event_logs import appended, new_events, opened


def retention(ledger: Ledger, log: SqliteEventLog, clock: SystemClock) -> RetentionLoop:
    """Return the retention of a ledger and a log; no delivery is under way."""
    idle = Dispatching(clock=clock)
    modes = LaneModes(idle.dispatcher, Replica(), idle.queue)
    recorder = Recorder(ledger, idle.queue, idle.dispatcher, modes, clock, wanted=lambda _id: True)
    return RetentionLoop(ledger, log, idle.dispatcher, recorder, modes, lambda: RetentionLimits(1.0, 1.0, 1.0, 1 << 40, 1.0))


async def test_events_that_the_log_is_to_drop_are_copied_where_they_are_needed_and_one_that_is_lost_costs_no_other(
    tmp_path: Path, store: SqliteStore, ledger: Ledger
) -> None:
    async with opened(tmp_path / "ingest.db") as it:
        places = [
            ShardPosition(0, result.position, result.event_id)
            for result in await appended(it.log, new_events(range(1200), partition=7, size_bytes=20_000))
        ]
        needed = places[::2]
        cursor = cursor_at(places[-1].position, places[-1].event_id)
        rows = [unfinished(index, partition=7, position=place.position, event_id=place.event_id) for index, place in enumerate(needed)]
        await ledger.flush(Flush(rows, cursors=[cursor]))
        lost = needed[3]
        with contextlib.closing(sqlite3.connect(tmp_path / "ingest.db")) as damaged, damaged:
            damaged.execute("DELETE FROM events WHERE position = ?", (lost.position,))
        looking = retention(ledger, it.log, SystemClock())
        # No event is past its retention: nothing is copied, and needed events pin the log for now.
        await looking.release_log()
        assert store.copies() == {}
        assert await it.log.trim(before_ms=1 << 50) == 0

        it.clock.time_s += 4000
        await looking.release_log()
        assert [record.event_id for record in store.copies().values()] == [place.event_id for place in needed if place != lost]
        assert await it.log.trim(before_ms=1 << 50) == len(places) - 1
        assert (await ledger.trim(before_ms=None, bytes_max=1 << 40)).copies == 0


def test_a_paused_delivery_past_its_time_is_given_up(play: Play) -> None:
    """It is given up whether the pause holds it back in the ledger or in memory."""

    async def scenario(world: World) -> None:
        await started(world, ALPHA, BETA)
        world.endpoints.modes[ALPHA.id] = Mode.SILENT
        records = world.publish(20, "alpha")
        await asyncio.sleep(1.0)
        world.change(replace(ALPHA, state=PAUSED))
        await asyncio.sleep(7200.0)
        assert deliveries(world, records) == [State.EXHAUSTED] * 20
        fresh = world.publish(1, "beta")
        await finished(world)
        assert deliveries(world, fresh, BETA) == [State.DELIVERED]

    play(scenario, HOOKTIDE_DELIVERY_EXPIRY_HOURS="1", HOOKTIDE_DELIVERY_LANE_PENDING_MAX="100")


def test_by_default_a_delivery_waits_as_long_as_the_log_keeps_events(play: Play) -> None:
    """The log tells its retention at the beginning of each following."""

    async def scenario(world: World) -> None:
        world.log.retention_s = 3600.0
        await started(world, ALPHA, replace(BETA, state=PAUSED))
        paused = world.publish(3, "beta")
        await asyncio.sleep(3400.0)
        assert deliveries(world, paused, BETA) == []
        await asyncio.sleep(400.0)
        assert deliveries(world, paused, BETA) == [State.EXHAUSTED] * 3
        world.log.set_reachable(reachable=False)
        await asyncio.sleep(1.0)
        world.log.retention_s = 7200.0
        world.log.set_reachable(reachable=True)
        longer = world.publish(3, "beta")
        await asyncio.sleep(6000.0)
        assert deliveries(world, longer, BETA) == []
        await asyncio.sleep(1400.0)
        assert deliveries(world, longer, BETA) == [State.EXHAUSTED] * 3

    play(scenario, HOOKTIDE_DELIVERY_LANE_PENDING_MAX="100")


@pytest.mark.parametrize("restarts", [False, True], ids=["meanwhile", "at the start"])
def test_a_wall_clock_that_is_far_ahead_for_a_while_gives_up_nothing(play: Play, *, restarts: bool) -> None:
    """Neither paused deliveries nor failures meanwhile are given up; finished deliveries stay in the ledger."""

    async def scenario(world: World) -> None:
        await started(world, ALPHA, replace(BETA, state=PAUSED))
        ended = world.publish(3, "alpha")
        paused = world.publish(3, "beta")
        await asyncio.sleep(70.0)
        world.endpoints.modes[ALPHA.id] = Mode.FAILING
        failing = world.publish(3, "alpha")
        await asyncio.sleep(0.3)
        if restarts:
            await world.stop(crash=False)
        world.set_clock_ahead(365 * 86400.0, 40.0)
        if restarts:
            await world.start()
        await asyncio.sleep(39.0)
        assert all(world.endpoints.sent[record.event_id, ALPHA.id].attempts > 3 for record in failing)
        world.endpoints.modes.clear()
        await asyncio.sleep(200.0)
        world.change(BETA)
        await finished(world)
        assert deliveries(world, ended + failing) == [State.DELIVERED] * 6
        assert deliveries(world, paused, BETA) == [State.DELIVERED] * 3

    play(scenario, HOOKTIDE_DELIVERY_LANE_PENDING_MAX="100", HOOKTIDE_DELIVERY_RETRY_DELAYS_SECONDS="0.5,1,4,20,20,20,20,20")


def test_events_that_the_log_drops_are_copied_while_a_delivery_needs_them(play: Play) -> None:
    async def scenario(world: World) -> None:
        await started(world, replace(ALPHA, state=PAUSED))
        records = world.publish(30, "alpha")
        await asyncio.sleep(300.0)
        world.log.trim()
        assert world.log.records == {}
        await world.stop(crash=True)
        await world.start()
        world.change(ALPHA)
        await finished(world)
        assert deliveries(world, records) == [State.DELIVERED] * 30
        await asyncio.sleep(300.0)
        assert world.store.copies() == {}

    play(scenario, HOOKTIDE_DELIVERY_LANE_PENDING_MAX="100")


def test_the_owner_of_a_paused_subscription_is_told_once_before_the_log_drops_what_waits(play: Play) -> None:
    """The notice comes when a seventh of the log's retention is left, names when the oldest event goes, and outlives a restart."""
    seventh_s = 1300.0

    async def scenario(world: World) -> None:
        world.log.retention_s = 7 * seventh_s
        await started(world, ALPHA)
        world.change(replace(ALPHA, state=PAUSED))
        await asyncio.sleep(1.0)
        records = world.publish(20, "alpha")

        def told() -> list[dict[str, object]]:
            return [json.loads(each.data) for each in world.notices.by_id.values() if each.type == EXPIRING]

        await asyncio.sleep(6 * seventh_s - 60.0)
        assert world.store.ranges(), "all of it waits as rows"
        assert told() == []
        await asyncio.sleep(660.0)
        [notice] = told()
        [first] = [row.at[0] + 1 for row in world.store.ranges()]
        waits_since_ms = world.log.records[first].accepted_ms
        assert notice["subscription_id"] == ALPHA.id
        assert notice["expires_at"] == time_text(waits_since_ms + int(7 * seventh_s * 1000))
        await world.stop(crash=True)
        await world.start()
        await asyncio.sleep(660.0)
        assert len(told()) == 1
        await asyncio.sleep(seventh_s)
        assert deliveries(world, records) == [State.EXHAUSTED] * 20
        assert len(told()) == 1

    play(scenario)
