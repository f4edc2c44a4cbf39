"""Freshness: after the process stood still, nothing is routed and no request leaves before the registry has answered."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from services.delivery.model import State
from services.delivery.subscriptions.freshness import GAP_MAX_S, Freshness
from services.delivery.transport.protocol import WITHDRAWN, Request
from tests.delivery.conftest import Play
from tests.delivery.sending import answer_to, post, sending, sent
from tests.simulation.endpoints import Mode
from tests.simulation.scenarios import ALPHA, deliveries, finished, started
from tests.simulation.world import World
from tests.support.virtual_time import VirtualClock, VirtualLoop
from tests.support.waiting import PATIENCE_S, until
from tests.support.webhook_receivers.hostile_receivers import OK, HostileServer, answering, hostile

LONG_S = 10 * GAP_MAX_S


def recording(clock: VirtualClock) -> tuple[Freshness, list[str]]:
    """Return a freshness, and the list of its calls in order."""
    calls: list[str] = []
    return Freshness(clock, lost=lambda: calls.append("lost"), proven=lambda: calls.append("proven")), calls


def virtually(scene: Callable[[VirtualLoop], Coroutine[Any, Any, None]]) -> None:
    with contextlib.closing(VirtualLoop(1)) as loop:
        loop.run_until_complete(scene(loop))


def test_a_gap_is_found_by_whoever_asks_first() -> None:
    """When the process goes on, a caller may ask before the heartbeat does."""

    async def scene(loop: VirtualLoop) -> None:
        clock = VirtualClock(loop)
        freshness, calls = recording(clock)
        clock.suspended_s += GAP_MAX_S
        assert freshness.holds()
        clock.suspended_s += 0.001
        assert not freshness.holds()
        assert not freshness.holds(), "it is lost until it is proven"
        await asyncio.sleep(0)
        assert calls == ["lost"]
        assert freshness.prove(freshness.gaps())
        assert freshness.holds()
        await asyncio.sleep(0)
        assert calls == ["lost", "proven"]

    virtually(scene)


def test_while_it_beats_nothing_is_lost_and_a_gap_is_found_by_the_beat() -> None:
    async def scene(loop: VirtualLoop) -> None:
        clock = VirtualClock(loop)
        freshness, calls = recording(clock)
        beating = asyncio.ensure_future(freshness.run())
        await asyncio.sleep(3600.0)
        assert calls == []
        clock.suspended_s += LONG_S
        await asyncio.sleep(1.0)
        assert calls == ["lost"]
        assert not freshness.holds()
        beating.cancel()

    virtually(scene)


def test_a_call_that_began_before_the_gap_proves_nothing() -> None:
    async def scene(loop: VirtualLoop) -> None:
        clock = VirtualClock(loop)
        freshness, _ = recording(clock)
        before = freshness.gaps()
        clock.suspended_s += LONG_S
        assert not freshness.prove(before)
        between = freshness.gaps()
        clock.suspended_s += LONG_S
        assert not freshness.prove(between), "there was another one meanwhile"
        assert not freshness.holds()
        assert freshness.prove(freshness.gaps())
        assert freshness.holds()

    virtually(scene)


# The worker


@pytest.mark.parametrize("frozen_s", [LONG_S, GAP_MAX_S / 2], ids=["long", "briefly"])
def test_after_a_freeze_nothing_is_routed_or_sent_until_the_registry_answers(play: Play, frozen_s: float) -> None:
    """Due retries, requests that wait for their turn, and new events all wait; after a brief freeze the routed ones go on."""

    async def scenario(world: World) -> None:
        await started(world, ALPHA)
        world.endpoints.modes[ALPHA.id], world.endpoints.at_once = Mode.FAILING, 1
        records = world.publish(30, "alpha")
        await asyncio.sleep(0.05)
        world.endpoints.modes.clear()
        world.freeze(frozen_s)
        world.registry.set_reachable(reachable=False)
        requests = world.endpoints.requests
        assert 0 < requests < 30
        records += world.publish(1, "alpha")
        await asyncio.sleep(60.0)
        if frozen_s > GAP_MAX_S:
            assert world.endpoints.requests == requests
        else:
            assert world.endpoints.requests > requests
        assert deliveries(world, records[-1:]) == []
        world.return_registry()
        await finished(world)
        assert deliveries(world, records) == [State.DELIVERED] * 31
        assert not world.endpoints.violations

    play(scenario, HOOKTIDE_DELIVERY_LANE_PENDING_MAX="100")


def test_what_waits_for_room_to_be_routed_is_not_routed_after_a_freeze(play: Play) -> None:
    """These events had passed the read barrier before the freeze."""

    async def scenario(world: World) -> None:
        world.change(ALPHA)
        await world.start()
        await asyncio.sleep(1.0)
        world.loop.slow_jobs["flush"] = (1.0, 0.1)
        records = world.publish(20, "alpha")
        await asyncio.sleep(0.5)
        world.freeze(LONG_S)
        world.registry.set_reachable(reachable=False)
        world.loop.slow_jobs.clear()
        await asyncio.sleep(30.0)
        assert len(world.states()) + len(world.open_rows()) < 10
        world.delete(ALPHA.id)
        world.return_registry()
        await finished(world)
        assert len(deliveries(world, records)) < 10

    play(scenario, HOOKTIDE_DELIVERY_LANE_PENDING_MAX="100")


# The transport


class Fresh:
    """Decides whether a request may leave."""

    def __init__(self, *, holds: bool) -> None:
        self.holds = holds

    def __call__(self) -> bool:
        """Return what the test has set."""
        return self.holds


@pytest.fixture
async def server() -> AsyncIterator[HostileServer]:
    """A server that answers at once."""
    async with hostile(answering(OK)) as server:
        yield server


def of(server: HostileServer, fresh: Fresh) -> Request:
    return post(server.url)._replace(subscription_id="sub_1", may_begin=fresh)


async def test_a_request_that_may_not_begin_waits_and_others_pass_it(server: HostileServer) -> None:
    fresh = Fresh(holds=False)
    async with sending(connections_max=2) as transport:
        waiting = sent(transport, of(server, fresh))
        for _ in range(3):
            assert (await answer_to(transport, post(server.url))).status == 200
        assert len(server.requests) == 3
        assert not waiting.done()
        fresh.holds = True
        assert (await asyncio.wait_for(waiting, PATIENCE_S)).status == 200


async def test_a_request_that_waits_can_be_withdrawn(server: HostileServer) -> None:
    async with sending() as transport:
        waiting = sent(transport, of(server, Fresh(holds=False)))
        assert (await answer_to(transport, post(server.url))).status == 200
        transport.withdraw("sub_1")
        assert await waiting == WITHDRAWN
        assert len(server.requests) == 1


@pytest.mark.parametrize("withdrawn", [True, False])
async def test_what_is_being_connected_does_not_leave_either(server: HostileServer, *, withdrawn: bool) -> None:
    fresh = Fresh(holds=True)
    async with sending() as transport:
        waiting = sent(transport, of(server, fresh))
        # The loop's next turn takes the request in and begins to connect.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        fresh.holds = False
        if withdrawn:
            transport.withdraw("sub_1")
            assert await waiting == WITHDRAWN
        else:
            await until(lambda: server.connections, PATIENCE_S, "the connection")
            assert (await answer_to(transport, post(server.url))).status == 200
            assert len(server.requests) == 1
            assert not waiting.done()
            fresh.holds = True
            assert (await asyncio.wait_for(waiting, PATIENCE_S)).status == 200
