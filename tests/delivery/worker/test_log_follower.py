"""Log follower in virtual time: the log goes away, comes back, or is restored from another copy."""

import asyncio
from dataclasses import replace

import pytest
from prometheus_client import REGISTRY

from services.delivery.model import State
from services.delivery.worker import log_follower
from tests.delivery.conftest import Play
from tests.simulation.registry import PAUSED, Wish
from tests.simulation.scenarios import ALPHA, BETA, deliveries, finished, started, started_failing
from tests.simulation.world import CONSUMERS, World


def test_while_the_registry_is_away_new_events_wait_and_deliveries_go_on(play: Play) -> None:
    """A metric shows the growing age of the oldest waiting event until the registry is back."""

    async def scenario(world: World) -> None:
        routed = await started_failing(world, 3, for_s=0.2)
        world.endpoints.modes.clear()
        world.registry.set_reachable(reachable=False)
        new = world.publish(3, "alpha")
        await asyncio.sleep(60.0)
        assert deliveries(world, routed) == [State.DELIVERED] * 3
        assert deliveries(world, new) == []
        assert 55.0 < (REGISTRY.get_sample_value("hooktide_unrouted_age_seconds") or 0.0) < 65.0
        world.return_registry()
        await finished(world)
        assert deliveries(world, new) == [State.DELIVERED] * 3
        await asyncio.sleep(3.0)
        assert REGISTRY.get_sample_value("hooktide_unrouted_age_seconds") == 0.0

    play(scenario)


def test_while_the_log_is_away_lanes_wait_for_it(play: Play) -> None:
    """Deliveries in memory go on; deliveries that must be read back follow when the log is back."""

    async def scenario(world: World) -> None:
        records = await started_failing(world, 30, for_s=5.0)
        world.endpoints.modes.clear()
        world.log.set_reachable(reachable=False)
        jobs = world.loop.jobs_done
        await asyncio.sleep(120.0)
        assert "event log cannot be read" in str(world.at_work().worker.why_not_ready())
        # Delivery cannot know what the log holds; the metric is the time since the log went away.
        assert 110.0 < (REGISTRY.get_sample_value("hooktide_unrouted_age_seconds") or 0.0) < 125.0
        # The worker asks about once a second, not without pause.
        assert world.loop.jobs_done - jobs < 120 * 3 + 100
        world.log.set_reachable(reachable=True)
        await finished(world)
        assert deliveries(world, records) == [State.DELIVERED] * 30

    play(scenario)


def test_following_goes_on_from_where_routing_stood(play: Play) -> None:
    """However often the stream breaks, each event is routed once."""

    async def scenario(world: World) -> None:
        await started(world, ALPHA)
        for _ in range(30):
            world.publish(3, "alpha")
            await asyncio.sleep(0.01)
            world.lose_log()
            await asyncio.sleep(1.0)
        await finished(world)
        assert world.endpoints.requests == 90

    play(scenario)


def test_a_restored_log_is_noticed_in_the_middle_of_a_fan_out(play: Play) -> None:
    """The rest of a fan-out belongs to the event with which it began, and to no other event at the same position."""

    async def scenario(world: World) -> None:
        for number in range(2600):
            world.change(Wish(f"sub_{number:032x}", CONSUMERS[0], ("alpha",)))
        await world.start()
        await world.ready()
        world.loop.slow_jobs["flush"] = (0.05, 0.05)
        (record,) = world.publish(1, "alpha")
        while not world.open_rows() and not world.states():  # noqa: ASYNC110 - time is virtual, looking costs nothing
            await asyncio.sleep(0.02)
        recorded = len(world.states()) + len(world.open_rows())
        assert 0 < recorded < 2600
        await world.stop(crash=True)
        world.log.records[record.position] = record._replace(event_id="evt_" + "f" * 32)
        stopped_before = REGISTRY.get_sample_value("hooktide_stopped_groups") or 0.0
        await world.start()
        await asyncio.sleep(60.0)
        assert REGISTRY.get_sample_value("hooktide_stopped_groups") == stopped_before + 1
        assert not [sent for sent in world.endpoints.log if sent.key[0] == "evt_" + "f" * 32]

    play(scenario)


def test_a_log_that_does_not_fit_the_ledger_is_not_followed(play: Play) -> None:
    """The log was restored from an older copy: no event is skipped silently, no events come in a storm, and an alarm reports it."""

    async def scenario(world: World) -> None:
        await started(world, ALPHA)
        first = world.publish(12, "alpha")
        await world.settle(60.0)
        await world.stop(crash=False)
        stopped_before = REGISTRY.get_sample_value("hooktide_stopped_groups") or 0.0
        # Another event is at the position of the cursor.
        last = first[-1]
        world.log.records[last.position] = last._replace(event_id="evt_" + "f" * 32)
        await world.start()
        await asyncio.sleep(5.0)
        assert REGISTRY.get_sample_value("hooktide_stopped_groups") == stopped_before + 1
        second = world.publish(100, "alpha")
        await asyncio.sleep(60.0)
        assert deliveries(world, second) == []
        assert str(world.at_work().worker.why_not_ready()).startswith("routing is stopped: ")
        # The oldest event that is not routed is the other event at the cursor.
        age_s = world.clock.now() - last.accepted_ms / 1000
        assert abs((REGISTRY.get_sample_value("hooktide_unrouted_age_seconds") or 0.0) - age_s) < 5.0

    play(scenario)


def test_another_log_is_not_followed(play: Play) -> None:
    async def scenario(world: World) -> None:
        await started(world, ALPHA, BETA)
        world.publish(3, "alpha")
        await world.settle(60.0)
        await world.stop(crash=False)
        world.log.log_id = "another"
        await world.start()
        world.publish(10, "beta")
        jobs = world.loop.jobs_done
        await asyncio.sleep(60.0)
        assert world.endpoints.requests == 3
        # The worker does not ask again and again.
        assert world.loop.jobs_done - jobs < 200
        assert not world.at_work().task.done()

    play(scenario)


def test_an_event_that_no_subscription_wants_is_recorded_without_a_row(play: Play) -> None:
    """The log keeps it for its readers, and nothing of it is left to do."""

    async def scenario(world: World) -> None:
        await started(world, ALPHA)
        [unwanted] = world.publish(1, "nobody.wants.this")
        await finished(world)
        [cursor] = world.store.cursor().shards
        assert (cursor.position, cursor.event_id, cursor.through) == (unwanted.position, unwanted.event_id, "")
        assert (world.open_rows(), world.states()) == ([], {})
        assert world.log.records[unwanted.position] == unwanted

    play(scenario)


def test_a_fan_out_to_a_thousand_holds_a_part_of_it_in_memory_at_a_time(play: Play) -> None:
    """One event is routed in chunks, and the next chunk waits until there is room, so a larger fan-out takes no more memory."""

    async def scenario(world: World) -> None:
        world.routed_min = world.routed_max = 250
        wishes = [world.change(replace(ALPHA, id=f"sub_{number:032x}")) for number in range(1000)]
        await world.start()
        await asyncio.sleep(5.0)
        [record] = world.publish(1, "alpha")
        lanes, held_max = world.at_work().worker.dispatcher.lanes, 0
        while len(world.states()) < len(wishes):
            held_max = max(held_max, sum(len(lane.held) for lane in lanes))
            await asyncio.sleep(0.005)
        # One chunk may go beyond the bound.
        assert 100 <= held_max <= 250 + 200
        assert {deliveries(world, [record], wish)[0] for wish in wishes} == {State.DELIVERED}

    play(scenario, HOOKTIDE_DELIVERY_IN_FLIGHT_MAX="100")


def test_a_lane_does_not_join_in_the_middle_of_a_fan_out(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """The event that is recorded for a part of its subscriptions is still owed to the lanes in that part that are behind."""
    monkeypatch.setattr(log_follower, "_CHUNK_DELIVERIES", 1)

    async def scenario(world: World) -> None:
        last = Wish("sub_" + "c" * 32, CONSUMERS[0], ("alpha",))
        world.routed_min = world.routed_max = 1
        world.change(replace(ALPHA, state=PAUSED))
        world.change(last)
        await world.start()
        await world.ready()
        records = world.publish(5, "alpha")
        while not (world.store.ranges() and world.store.cursor().shards[0].through):  # noqa: ASYNC110 - time is virtual
            await asyncio.sleep(0.001)
        await world.stop(crash=True)
        world.change(ALPHA)
        world.log.set_reachable(reachable=False)
        await world.start()
        await asyncio.sleep(1.0)
        world.registry.set_reachable(reachable=False)
        world.log.set_reachable(reachable=True)
        await asyncio.sleep(10.0)
        world.return_registry()
        await finished(world)
        assert deliveries(world, records) == deliveries(world, records, last) == [State.DELIVERED] * 5

    play(scenario, HOOKTIDE_DELIVERY_LANE_PENDING_MAX="1")
