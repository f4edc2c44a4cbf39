"""Recorder in virtual time: limits, a full disk, stops and crashes, and what the ledger knows after each."""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from services.delivery.dispatch.lane_table import UNRECORDED_SENT_MAX
from services.delivery.errors import LeaseLostError, LedgerFullError
from services.delivery.ledger.protocol import Takeover
from services.delivery.ledger.rows import DoneRow, OpenRow
from services.delivery.ledger.sqlite.ledger import SqliteLedger
from services.delivery.model import State, delivery_id
from services.delivery.worker import log_follower
from services.delivery.worker.backpressure import LIMIT_MAX
from tests.delivery.conftest import Play
from tests.delivery.ledger.stores import SqliteStore
from tests.simulation.end_checks import check_end
from tests.simulation.endpoints import Mode
from tests.simulation.registry import PAUSED, Wish
from tests.simulation.scenarios import ALPHA, BETA, deliveries, finished, started
from tests.simulation.world import CONSUMERS, World

WIDE = {
    "HOOKTIDE_DELIVERY_IN_FLIGHT_MAX": "768",
    "HOOKTIDE_DELIVERY_LANE_IN_FLIGHT_MAX": "256",
    "HOOKTIDE_DELIVERY_LANE_PENDING_MAX": "100000",
}


def test_a_delivery_that_ends_at_once_is_written_once(play: Play) -> None:
    """It is written in its final state, and never has an unfinished row; the counters of rows show it."""

    def written(kind: str) -> float:
        return REGISTRY.get_sample_value("hooktide_ledger_rows_total", {"kind": kind}) or 0.0

    async def scenario(world: World) -> None:
        await started(world, ALPHA)
        opened, ended = written("open"), written("finished")
        records = world.publish(5, "alpha")
        while len(deliveries(world, records)) < 5:
            assert world.open_rows() == []
            await asyncio.sleep(0.001)
        await finished(world)
        assert (written("open") - opened, written("finished") - ended) == (0, 5)

    play(scenario, HOOKTIDE_DELIVERY_LANE_PENDING_MAX="100")


def test_sent_but_unrecorded_work_is_bounded(play: Play) -> None:
    """While a commit hangs, sending goes on up to its limit, and routing up to its own."""

    async def scenario(world: World) -> None:
        await started(world, ALPHA)
        world.loop.slow_jobs["flush"] = (300.0, 0.001)
        world.publish(6000, "alpha")
        await asyncio.sleep(250.0)
        dispatcher = world.at_work().worker.dispatcher
        assert dispatcher.lanes.unrecorded_sent == UNRECORDED_SENT_MAX
        assert world.endpoints.requests == UNRECORDED_SENT_MAX
        assert len(dispatcher.lanes.lane(ALPHA.id).held) <= LIMIT_MAX
        world.loop.slow_jobs.clear()
        await finished(world)

    play(scenario, **WIDE)


def test_at_the_bound_of_unrecorded_work_what_is_under_way_still_is_written_once(play: Play) -> None:
    """Only as many deliveries are written before their end as are needed to come below the limit, and none that is not even sent."""

    async def scenario(world: World) -> None:
        await started(world, ALPHA)
        world.endpoints.modes[ALPHA.id], world.endpoints.slow_s = Mode.SLOW, 0.04
        world.loop.slow_jobs["flush"] = (0.03, 0.001)
        records = world.publish(4000, "alpha")
        unfinished: set[str] = set()
        while len(world.states()) < len(records):
            unfinished |= {row.event_id for row in world.open_rows()}
            await asyncio.sleep(0.01)
        assert len(unfinished) < len(records) / 4
        world.loop.slow_jobs.clear()
        await finished(world)

    play(scenario, **WIDE)


def test_ends_of_recorded_deliveries_are_bounded_too(play: Play) -> None:
    """A delivery that was read back or recorded first has a row, but its end is not in the ledger before the next flush."""

    async def scenario(world: World) -> None:
        await started(world, replace(ALPHA, state=PAUSED))
        world.publish(3000, "alpha")
        await asyncio.sleep(30.0)
        world.loop.slow_jobs["flush"] = (300.0, 0.001)
        world.change(ALPHA)
        await asyncio.sleep(250.0)
        assert world.endpoints.requests <= UNRECORDED_SENT_MAX
        world.loop.slow_jobs.clear()
        await finished(world)

    play(scenario, **WIDE)


def test_a_worker_that_finds_the_disk_full_starts_once_there_is_room(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """Meanwhile it is not ready, and it stays alive."""
    take_lease, refused = SqliteLedger.take_lease, 0

    async def refuse_at_first(ledger: SqliteLedger, owner: str) -> Takeover:
        nonlocal refused
        if refused < 3:
            refused += 1
            raise LedgerFullError
        return await take_lease(ledger, owner)

    async def scenario(world: World) -> None:
        world.subscribe()
        await world.start()
        await asyncio.sleep(1.5)
        assert world.at_work().worker.why_not_ready() is not None
        world.publish(1)
        await world.ready()
        assert refused == 3
        await world.settle(within_s=60.0)
        check_end(world)

    monkeypatch.setattr(SqliteLedger, "take_lease", refuse_at_first)
    play(scenario)


def test_while_the_disk_is_full_nothing_is_sent_and_then_all_is(play: Play) -> None:
    """No attempt begins if its end could not be recorded; waiting costs nothing; delivery recovers by itself."""

    async def scenario(world: World) -> None:
        await started(world, ALPHA, BETA)
        world.endpoints.modes[BETA.id] = Mode.FAILING
        world.publish(50, "beta")
        await asyncio.sleep(3.0)
        world.endpoints.modes.clear()
        await world.fill_disk(full=True)
        while not (world.at_work().worker.why_not_ready() or "").startswith("the ledger"):
            world.publish(20, "alpha")
            await asyncio.sleep(0.2)
        await asyncio.sleep(20.0)
        requests, jobs = world.endpoints.requests, world.loop.jobs_done
        world.publish(100, "alpha")
        await asyncio.sleep(600.0)
        assert world.endpoints.requests == requests
        # One attempt to flush a second, and housekeeping.
        assert world.loop.jobs_done - jobs < 600 + 10 * 30
        await world.fill_disk(full=False)
        await finished(world)
        assert world.at_work().worker.why_not_ready() is None
        check_end(world)

    play(scenario)


def test_a_stop_starts_nothing_more_and_records_what_it_knows(play: Play) -> None:
    """Attempts under way may end, flushes go on meanwhile, and after the next start nothing is sent twice."""

    async def scenario(world: World) -> None:
        await started(world, ALPHA)
        world.endpoints.modes[ALPHA.id], world.endpoints.slow_s = Mode.SLOW, 3.0
        world.publish(30, "alpha")
        await asyncio.sleep(1.0)
        requests = world.endpoints.requests
        await world.stop(crash=False)
        assert world.endpoints.requests == requests
        world.endpoints.modes.clear()
        await world.start()
        await finished(world)
        assert world.endpoints.requests == 30
        check_end(world)

    play(scenario, HOOKTIDE_DELIVERY_LANE_PENDING_MAX="100")


def test_a_stop_in_the_middle_of_a_flush_waits_for_it(play: Play) -> None:
    async def scenario(world: World) -> None:
        await started(world, ALPHA)
        world.loop.slow_jobs["flush"] = (1.0, 1.0)
        world.publish(1, "alpha")
        await asyncio.sleep(0.5)
        await world.stop(crash=False)
        world.loop.slow_jobs.clear()
        await world.start()
        await finished(world)
        assert world.endpoints.requests == 1

    play(scenario)


def test_a_stop_while_events_keep_coming_ends_in_time(play: Play) -> None:
    async def scenario(world: World) -> None:
        await started(world, ALPHA)
        world.endpoints.modes[ALPHA.id] = Mode.SLOW

        async def publish() -> None:
            while True:
                world.publish(5, "alpha")
                await asyncio.sleep(0.005)

        world.loop.slow_jobs["flush"] = (0.05, 0.05)
        publishing = asyncio.create_task(publish())
        await asyncio.sleep(2.0)
        begun = world.loop.time()
        await world.stop(crash=False)
        assert world.loop.time() - begun < 5.0
        publishing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await publishing
        world.loop.slow_jobs.clear()
        world.endpoints.modes.clear()
        await world.start()
        await finished(world)
        check_end(world)

    play(scenario)


def test_after_each_of_many_crashes_an_event_is_sent_at_most_once(play: Play) -> None:
    """A crash loop repeats a request at most once for each start, and only after the delivery is recorded."""

    async def scenario(world: World) -> None:
        world.change(ALPHA)
        world.endpoints.modes[ALPHA.id] = Mode.SILENT
        records = world.publish(3, "alpha")
        for _ in range(5):
            await world.start()
            await asyncio.sleep(5.0)
            await world.stop(crash=True)
        sent = [sent.key[0] for sent in world.endpoints.log]
        assert [sent.count(record.event_id) for record in records] == [5, 5, 5]
        world.endpoints.modes.clear()
        await world.start()
        await finished(world)

    play(scenario, HOOKTIDE_DELIVERY_LANE_PENDING_MAX="100")


def test_a_worker_that_has_lost_its_lease_sends_nothing_more(play: Play) -> None:
    """Another worker has taken the lease: the first worker fails at its next flush, and starts no attempt after that."""

    async def scenario(world: World) -> None:
        await started(world, ALPHA)
        world.publish(3, "alpha")
        await asyncio.sleep(1.0)
        running = world.at_work()
        async with world.store.open_beside() as other:
            await other.take_lease("another")
        world.endpoints.modes[ALPHA.id], world.endpoints.slow_s = Mode.SLOW, 1.0
        world.publish(100, "alpha")
        with pytest.raises(ExceptionGroup) as caught:
            await running.task
        assert caught.group_contains(LeaseLostError)
        requests = world.endpoints.requests
        await asyncio.sleep(60.0)
        assert world.endpoints.requests == requests
        running.transport.abandon()
        await running.stack.aclose()
        world.running = None
        world.endpoints.modes.clear()
        await world.start()
        await finished(world)

    play(scenario, HOOKTIDE_DELIVERY_LANE_PENDING_MAX="100", HOOKTIDE_DELIVERY_LANE_IN_FLIGHT_MAX="2")


@pytest.mark.parametrize("flushes", [1, 2, 3])
def test_a_large_fan_out_goes_on_where_the_crash_has_cut_it(play: Play, flushes: int) -> None:
    """One event for 2600 subscriptions spans several flushes; every subscription gets it, and a recorded delivery is not repeated."""

    async def scenario(world: World) -> None:
        wishes = [world.change(Wish(f"sub_{number:032x}", CONSUMERS[0], ("alpha",))) for number in range(2600)]
        await world.start()
        await world.ready()
        world.loop.slow_jobs["flush"] = (0.05, 0.05)
        (record,) = world.publish(1, "alpha")
        await asyncio.sleep(0.06 + 0.1 * flushes)
        recorded = len(world.states()) + len(world.open_rows())
        assert 0 < recorded < 2600 or flushes == 3
        await world.stop(crash=True)
        world.loop.slow_jobs.clear()
        await world.start()
        await finished(world)
        states = world.states()
        assert all(states[delivery_id(record.event_id, wish.id)] is State.DELIVERED for wish in wishes)
        check_end(world)

    play(scenario, **WIDE)


def test_an_event_that_cannot_be_encoded_is_set_aside(play: Play) -> None:
    """One record that cannot be encoded stops nothing else."""

    async def scenario(world: World) -> None:
        await started(world, ALPHA)
        poison, healthy = world.publish(2, "alpha")
        world.log.records[poison.position] = poison._replace(event=b"\xff\xff")
        await finished(world)
        assert deliveries(world, [poison]) == [State.EXHAUSTED]
        assert deliveries(world, [healthy]) == [State.DELIVERED]

    play(scenario)


def test_deliveries_whose_ids_collide_are_each_sent_and_recorded(play: Play, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With 4 bits of a hash in each id: the ledger gives other ids and counts them, and retries, ends and a restart find every row."""
    count, store = 12, SqliteStore(tmp_path / "weak.db", _weak_id)
    monkeypatch.setattr(log_follower, "delivery_id", _weak_id)

    def taken() -> float:
        return REGISTRY.get_sample_value("hooktide_delivery_ids_taken_total") or 0.0

    def keys(rows: Sequence[OpenRow | DoneRow]) -> set[tuple[str, str]]:
        return {(row.event_id, row.subscription_id) for row in rows}

    async def scenario(world: World) -> None:
        world.store, before = store, taken()
        world.endpoints.recorded = lambda key: key in keys(store.done_rows())
        world.endpoints.unrecorded = lambda key: world.crashes > 0 and key not in keys(store.open_rows())
        await started(world, ALPHA)
        world.endpoints.modes[ALPHA.id] = Mode.FAILING
        events = {record.event_id for record in world.publish(count, "alpha")}
        while len(store.open_rows()) < count:  # noqa: ASYNC110 - time is virtual, looking costs nothing
            await asyncio.sleep(0.1)
        assert {row.event_id for row in store.open_rows()} == events
        assert len({row.id for row in store.open_rows()}) == count
        assert taken() > before
        await world.stop(crash=True)
        world.endpoints.modes.clear()
        await world.start()
        while len(store.done_rows()) < count:  # noqa: ASYNC110 - time is virtual, looking costs nothing
            await asyncio.sleep(1.0)
        assert {row.event_id for row in store.done_rows()} == events
        assert store.open_rows() == []
        assert [world.endpoints.sent[event_id, ALPHA.id].successes for event_id in events] == [1] * count

    play(scenario, HOOKTIDE_DELIVERY_LANE_PENDING_MAX="100")


def _weak_id(event_id: str, subscription_id: str, job_id: str = "", nth: int = 0) -> bytes:
    strong = delivery_id(event_id, subscription_id, job_id, nth)
    return strong[:6] + bytes([0, strong[7] & 0x0F]) + bytes(8)
