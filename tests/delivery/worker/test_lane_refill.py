"""Lane refill in virtual time: waiting rows come back into their lanes, each once and in order."""

import asyncio
from dataclasses import replace

import pytest

from services.delivery.model import State
from tests.delivery.conftest import Play
from tests.simulation.endpoints import Mode
from tests.simulation.registry import PAUSED
from tests.simulation.scenarios import ALPHA, deliveries, finished, started, started_failing
from tests.simulation.world import World


@pytest.mark.parametrize("bound", ["1", "2", "3"])
def test_the_smallest_bounds_drain(play: Play, bound: str) -> None:
    """A lane that may hold a single delivery still reads the others back."""

    async def scenario(world: World) -> None:
        records = await started_failing(world, 40, for_s=5.0)
        world.endpoints.modes.clear()
        await finished(world)
        assert deliveries(world, records) == [State.DELIVERED] * 40

    play(scenario, HOOKTIDE_DELIVERY_LANE_PENDING_MAX=bound)


def test_a_lane_that_only_waits_for_retries_wakes_for_them(play: Play) -> None:
    """No new event comes after an outage: the breaker is open, every retry is due after the probe's time, and no retry is forgotten."""

    async def scenario(world: World) -> None:
        records = await started_failing(world, 10, for_s=1.0)
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
        await started_failing(world, 1, for_s=0.4)
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

    play(scenario, HOOKTIDE_DELIVERY_LANE_PENDING_MAX="100", HOOKTIDE_DELIVERY_LANE_IN_FLIGHT_MAX="3")


def test_a_delivery_whose_event_is_nowhere_any_more_is_given_up(play: Play) -> None:
    """After a log was lost, such a delivery does not wait for ever, and its neighbours go on."""

    async def scenario(world: World) -> None:
        await started(world, replace(ALPHA, state=PAUSED))
        lost, kept = world.publish(2, "alpha")
        await asyncio.sleep(1.0)
        del world.log.records[lost.position]
        world.change(ALPHA)
        await finished(world)
        assert deliveries(world, [lost]) == [State.EXHAUSTED]
        assert deliveries(world, [kept]) == [State.DELIVERED]

    play(scenario)
