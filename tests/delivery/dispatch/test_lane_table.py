"""Lanes in virtual time: deliveries wait in memory or in the ledger, and come back from the ledger."""

import asyncio
import itertools
from dataclasses import replace

import pytest

from services.delivery.model import State
from tests.delivery.conftest import Play
from tests.simulation.endpoints import Mode
from tests.simulation.registry import PAUSED
from tests.simulation.scenarios import ALPHA, BETA, deliveries, finished, started
from tests.simulation.world import DELAYS_S, World


@pytest.mark.parametrize("bound", ["1", "2", "3"])
def test_the_smallest_bounds_drain(play: Play, bound: str) -> None:
    """A lane that may hold a single delivery still reads the others back."""

    async def scenario(world: World) -> None:
        await started(world, ALPHA)
        world.endpoints.modes[ALPHA.id] = Mode.FAILING
        records = world.publish(40, "alpha")
        await asyncio.sleep(5.0)
        world.endpoints.modes.clear()
        await finished(world)
        assert deliveries(world, records) == [State.DELIVERED] * 40

    play(scenario, HOOKTIDE_DELIVERY_LANE_PENDING_MAX=bound)


def test_a_lane_that_only_waits_for_retries_wakes_for_them(play: Play) -> None:
    """No new event comes after an outage: the breaker is open, every retry is due after the probe's time, and no retry is forgotten."""

    async def scenario(world: World) -> None:
        await started(world, ALPHA)
        world.endpoints.modes[ALPHA.id] = Mode.FAILING
        records = world.publish(10, "alpha")
        await asyncio.sleep(1.0)
        world.endpoints.modes.clear()
        await finished(world, within_s=900.0)
        assert deliveries(world, records) == [State.DELIVERED] * 10

    # The probe's time comes before the first retry.
    play(scenario, HOOKTIDE_DELIVERY_RETRY_DELAYS_SECONDS="300,300", HOOKTIDE_DELIVERY_LANE_PENDING_MAX="100")


def test_due_rows_that_find_no_room_cost_no_time(play: Play) -> None:
    """More retries are due than the lane has room for: nothing loops until there is room."""

    async def scenario(world: World) -> None:
        await started(world, ALPHA)
        # A success between the failures keeps the breaker closed, so that the lane stays direct.
        for _ in range(6):
            world.endpoints.modes[ALPHA.id] = Mode.FAILING
            world.publish(8, "alpha")
            await asyncio.sleep(0.2)
            world.endpoints.modes[ALPHA.id] = Mode.OK
            world.publish(1, "alpha")
            await asyncio.sleep(0.2)
        world.endpoints.modes[ALPHA.id] = Mode.SILENT
        await asyncio.sleep(60.0)
        jobs_before = world.loop.jobs_done
        await asyncio.sleep(3.0)
        assert world.loop.jobs_done - jobs_before < 100
        world.endpoints.modes.clear()
        await finished(world)

    play(scenario, HOOKTIDE_DELIVERY_LANE_PENDING_MAX="10", HOOKTIDE_DELIVERY_LANE_IN_FLIGHT_MAX="2")


def test_a_row_written_while_rows_are_read_is_read_too(play: Play) -> None:
    """A lane may not count as caught up by a view of the ledger that is older than the lane's latest rows."""

    async def scenario(world: World) -> None:
        await started(world, replace(ALPHA, state=PAUSED))
        world.publish(1, "alpha")
        await asyncio.sleep(1.0)
        # The read takes a second, and sees nothing that is written during it.
        world.loop.slow_jobs["due_rows"] = (0.001, 1.0)
        world.change(ALPHA)
        await asyncio.sleep(0.3)
        late = world.publish(1, "alpha")
        await finished(world, within_s=60.0)
        assert deliveries(world, late) == [State.DELIVERED]

    play(scenario)


def test_a_retry_that_begins_to_wait_while_rows_are_read_is_not_forgotten(play: Play) -> None:
    """The lane learns the retry's due time from the attempt's own end, whatever the older view of the ledger says."""

    async def scenario(world: World) -> None:
        await started(world, replace(ALPHA, state=PAUSED))
        world.publish(1, "alpha")
        await asyncio.sleep(1.0)
        world.loop.slow_jobs["due_rows"] = (0.001, 0.001)
        world.loop.slow_jobs["next_due_ms"] = (0.001, 3.0)
        world.endpoints.modes[ALPHA.id] = Mode.FAILING
        world.change(ALPHA)
        await finished(world, within_s=60.0)

    play(scenario, HOOKTIDE_DELIVERY_LANE_PENDING_MAX="100")


@pytest.mark.parametrize("job", ["due_rows", "next_due_ms"])
def test_a_delivery_that_ends_while_its_row_is_read_is_not_sent_again(play: Play, job: str) -> None:
    """Its row was read while the attempt was under way, and arrives after its success is recorded."""

    async def scenario(world: World) -> None:
        await started(world, ALPHA)
        world.endpoints.modes[ALPHA.id] = Mode.FAILING
        world.publish(1, "alpha")
        await asyncio.sleep(0.4)
        # The attempt takes longer than a flush waits, so its row is written as unfinished.
        world.endpoints.modes[ALPHA.id], world.endpoints.slow_s = Mode.SLOW, 2.0
        world.loop.slow_jobs[job] = (0.001, 3.0)
        during = world.publish(1, "alpha")
        await finished(world, within_s=60.0)
        assert [sent.number for sent in world.endpoints.log if sent.key[0] == during[0].event_id] == [1]

    play(scenario, HOOKTIDE_DELIVERY_LANE_PENDING_MAX="100", HOOKTIDE_DELIVERY_RETRY_DELAYS_SECONDS="1,1,1")


def test_a_row_that_is_seen_before_its_flush_is_heard_of_is_sent_once(play: Play) -> None:
    """A committed row may be read back before the commit's caller knows of the commit."""

    async def scenario(world: World) -> None:
        await started(world, replace(ALPHA, state=PAUSED))
        world.publish(1, "alpha")
        await asyncio.sleep(1.0)
        world.loop.slow_jobs["flush"] = (0.001, 1.0)
        world.endpoints.modes[ALPHA.id], world.endpoints.slow_s = Mode.SLOW, 5.0
        seen = world.publish(1, "alpha")
        await asyncio.sleep(0.2)
        world.change(ALPHA)
        await finished(world, within_s=60.0)
        assert [sent.number for sent in world.endpoints.log if sent.key[0] == seen[0].event_id] == [1]

    play(scenario)


def test_what_is_let_go_of_while_it_is_being_written_comes_back(play: Play) -> None:
    """The subscription is paused during the flush that first writes its deliveries, and resumed before the flush ends."""

    async def scenario(world: World) -> None:
        await started(world, ALPHA)
        world.endpoints.modes[ALPHA.id], world.endpoints.slow_s = Mode.SLOW, 4.0
        world.loop.slow_jobs["flush"] = (2.0, 0.001)
        records = world.publish(20, "alpha")
        await asyncio.sleep(0.5)
        world.change(replace(ALPHA, state=PAUSED))
        await asyncio.sleep(0.2)
        world.change(ALPHA)
        await asyncio.sleep(3.0)
        world.loop.slow_jobs.clear()
        await finished(world, within_s=120.0)
        assert deliveries(world, records) == [State.DELIVERED] * 20

    play(scenario, HOOKTIDE_DELIVERY_LANE_PENDING_MAX="100")


def test_a_pause_lets_go_of_what_was_read_back_and_a_resumption_takes_it_up(play: Play) -> None:
    async def scenario(world: World) -> None:
        world.change(ALPHA)
        records = world.publish(20, "alpha")
        world.endpoints.modes[ALPHA.id], world.endpoints.slow_s = Mode.SLOW, 14.0
        await world.start()
        await asyncio.sleep(5.0)
        await world.stop(crash=True)
        await world.start()
        await asyncio.sleep(5.0)
        lane = world.at_work().worker.dispatcher.lanes.lane(ALPHA.id)
        assert any(delivery.recorded for delivery in lane.queue)
        world.change(replace(ALPHA, state=PAUSED))
        await asyncio.sleep(1.0)
        assert not lane.queue
        await asyncio.sleep(60.0)
        world.endpoints.modes.clear()
        requests = world.endpoints.requests
        await asyncio.sleep(3600.0)
        assert world.endpoints.requests == requests
        world.change(ALPHA)
        await finished(world)
        assert deliveries(world, records) == [State.DELIVERED] * 20

    play(scenario, HOOKTIDE_DELIVERY_LANE_PENDING_MAX="100")


def test_a_dead_endpoint_costs_neither_memory_nor_the_others_time(play: Play) -> None:
    """Thousands of deliveries wait for the dead endpoint in the ledger, and the healthy endpoint's deliveries go on."""

    async def scenario(world: World) -> None:
        await started(world, ALPHA, BETA)
        world.endpoints.modes[ALPHA.id] = Mode.SILENT
        dispatcher = world.at_work().worker.dispatcher
        for _ in range(10):
            world.publish(300, "alpha")
            healthy = world.publish(30, "beta")
            await asyncio.sleep(10.0)
            assert len(deliveries(world, healthy, BETA)) == 30
            assert len(dispatcher.lanes.lane(ALPHA.id).held) <= 5 + 4 + 10
            assert dispatcher.lanes.held_bytes < 100_000
        assert len(world.open_rows()) == 3000
        world.endpoints.modes.clear()
        await finished(world, within_s=3600.0)

    play(scenario)


def test_after_an_outage_events_arrive_in_the_order_of_their_positions(play: Play) -> None:
    """The order holds for events that were not tried during the outage; the tried ones follow when they are due."""

    async def scenario(world: World) -> None:
        await started(world, ALPHA)
        world.endpoints.modes[ALPHA.id] = Mode.FAILING
        world.publish(300, "alpha")
        await asyncio.sleep(20.0)
        world.endpoints.modes.clear()
        await finished(world, within_s=3600.0)
        firsts = [sent for sent in world.endpoints.log if sent.number == 1]
        assert len(firsts) == 300
        positions = [int(sent.key[0][-15:], 16) for sent in firsts]
        assert positions == sorted(positions)

    play(scenario, HOOKTIDE_DELIVERY_LANE_IN_FLIGHT_MAX="1")


def test_an_open_breaker_lets_one_probe_through_at_a_time(play: Play) -> None:
    """However many deliveries wait, a dead endpoint gets one probe at a time, ever more rarely, and no delivery loses an attempt."""

    async def scenario(world: World) -> None:
        await started(world, ALPHA)
        world.endpoints.modes[ALPHA.id] = Mode.FAILING
        world.publish(200, "alpha")
        await asyncio.sleep(1.0)
        before = len(world.endpoints.log)
        assert before <= 10 + world.settings.delivery_lane_in_flight_max
        await asyncio.sleep(90.0)
        probes = [sent.at for sent in world.endpoints.log[before:]]
        gaps = [after - earlier for earlier, after in itertools.pairwise(probes)]
        assert 5 <= len(probes) <= 6
        assert all(after > 1.2 * earlier for earlier, after in itertools.pairwise(gaps))
        world.endpoints.modes.clear()
        await finished(world, within_s=3600.0)

    play(scenario)


def test_an_endpoint_that_asks_for_a_pause_gets_it_and_the_others_none(play: Play) -> None:
    async def scenario(world: World) -> None:
        await started(world, ALPHA, BETA)
        world.endpoints.modes[ALPHA.id] = Mode.THROTTLING
        world.publish(5, "alpha")
        await asyncio.sleep(0.5)
        until = world.endpoints.throttled_until[ALPHA.id, ALPHA.sink]
        world.endpoints.modes.clear()
        late = world.publish(20, "alpha")
        other = world.publish(20, "beta")
        while len(deliveries(world, other, BETA)) < 20:
            assert world.loop.time() < until
            await asyncio.sleep(0.05)
        assert deliveries(world, late) == []
        await finished(world)
        assert min(sent.at for sent in world.endpoints.log if sent.key[0] == late[0].event_id) >= until

    play(scenario)


def test_a_lane_of_many_keeps_no_other_waiting(play: Play) -> None:
    """Lanes take turns: ten events wait only for the requests that are sent before their routing, not for all three thousand."""

    async def scenario(world: World) -> None:
        await started(world, ALPHA, BETA)
        world.publish(3000, "alpha")
        few = world.publish(10, "beta")
        await world.settle(600.0)
        order = [sent.key for sent in world.endpoints.log]
        last_of_few = max(order.index((record.event_id, BETA.id)) for record in few)
        assert last_of_few < 1500
        await finished(world)

    play(scenario, HOOKTIDE_DELIVERY_LANE_PENDING_MAX="5000")


def test_lanes_are_forgotten_once_nothing_is_known_of_them(play: Play) -> None:
    """Memory follows current work, not all subscriptions that ever existed."""

    async def scenario(world: World) -> None:
        await started(world, ALPHA, BETA)
        world.endpoints.modes[BETA.id] = Mode.FAILING
        world.publish(30, "alpha")
        world.publish(30, "beta")
        await asyncio.sleep(5.0)
        world.delete(BETA.id)
        await world.settle(60.0)
        await asyncio.sleep(1.0)
        assert len(world.at_work().worker.dispatcher.lanes) == 0

    play(scenario, HOOKTIDE_DELIVERY_LANE_PENDING_MAX="100")


def test_a_lane_is_remembered_for_as_long_as_its_breaker_may_not_change_again(play: Play) -> None:
    """Then the lane is forgotten by itself; another lane whose latest attempt has failed is not."""

    async def scenario(world: World) -> None:
        await started(world, ALPHA, BETA)
        lanes = world.at_work().worker.dispatcher.lanes
        world.endpoints.modes[ALPHA.id] = world.endpoints.modes[BETA.id] = Mode.FAILING
        world.publish(12, "alpha")
        world.publish(1, "beta")
        await asyncio.sleep(1.0)
        world.endpoints.modes.pop(ALPHA.id)
        await world.settle(600.0)
        assert {lane.subscription_id for lane in lanes} == {ALPHA.id, BETA.id}
        await asyncio.sleep(60.0)
        assert {lane.subscription_id for lane in lanes} == {BETA.id}
        await finished(world)

    play(
        scenario,
        HOOKTIDE_DELIVERY_BREAKER_SECONDS="30",
        HOOKTIDE_DELIVERY_RETRY_DELAYS_SECONDS="1,1",
        HOOKTIDE_DELIVERY_LANE_PENDING_MAX="100",
    )


def test_when_all_attempts_have_failed_a_delivery_is_exhausted(play: Play) -> None:
    async def scenario(world: World) -> None:
        await started(world, ALPHA)
        world.endpoints.modes[ALPHA.id] = Mode.FAILING
        records = world.publish(1, "alpha")
        await finished(world, within_s=3600.0)
        assert deliveries(world, records) == [State.EXHAUSTED]
        assert [sent.number for sent in world.endpoints.log] == list(range(1, len(DELAYS_S) + 2))

    play(scenario)
