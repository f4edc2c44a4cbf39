"""Lane table in virtual time: what lanes hold, in which turn and order they send, and when they are forgotten."""

import asyncio
import itertools

from services.delivery.model import State
from tests.delivery.conftest import Play
from tests.simulation.endpoints import Mode
from tests.simulation.scenarios import ALPHA, BETA, deliveries, finished, started, started_failing
from tests.simulation.tiny_settings import DELAYS_S
from tests.simulation.world import World


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
        # What was tried, and as many rows as may wait; the lane owes the rest, which costs a row.
        assert len(world.open_rows()) <= 5 + 4 + 10
        assert len(world.store.ranges()) == 1
        world.endpoints.modes.clear()
        await finished(world, within_s=3600.0)

    play(scenario)


def test_after_an_outage_events_arrive_in_the_order_of_their_positions(play: Play) -> None:
    """The order holds for events that were not tried during the outage; the tried ones follow when they are due."""

    async def scenario(world: World) -> None:
        await started_failing(world, 300, for_s=20.0)
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
        await started_failing(world, 200, for_s=1.0)
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
        # A concurrency limit that has grown is remembered for a minute.
        await asyncio.sleep(61.0)
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
