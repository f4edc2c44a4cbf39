"""Withdrawn requests: a request that waits to begin and is withdrawn never leaves, and is no attempt."""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import pytest
from hooktide.subscription.v1 import subscription_pb2

from services.delivery.dispatch.circuit_breaker import FAILURES_MAX
from services.delivery.model import State
from services.delivery.transport.http import HttpTransport
from services.delivery.transport.protocol import WITHDRAWN, Outcome, Request
from services.eventlog.record import Record
from tests.delivery.conftest import Play
from tests.delivery.sending import answer_to, post, sending, sent
from tests.delivery.system import Delivering, System
from tests.delivery.system import State as Shown
from tests.simulation.endpoints import Mode
from tests.simulation.registry import DISABLED, PAUSED
from tests.simulation.scenarios import ALPHA, BETA, deliveries, finished, started
from tests.simulation.world import World
from tests.support.events import cloud_event
from tests.support.webhook_receivers.hostile_receivers import OK, Connection, HostileServer, answering, black_hole, hostile
from tests.support.webhook_receivers.receiver import Receiver

NEW = "https://consumer.example/new"

# The transport


class Gate:
    """A server that answers when the test lets it."""

    def __init__(self) -> None:
        self.opens = asyncio.Event()

    async def behave(self, connection: Connection) -> None:
        """Wait before each answer."""
        while await connection.request() is not None:
            await self.opens.wait()
            await connection.send(OK)


@pytest.fixture
async def gate() -> Gate:
    return Gate()


@pytest.fixture
async def server(gate: Gate) -> AsyncIterator[HostileServer]:
    async with hostile(gate.behave) as server:
        yield server


def of(subscription_id: str, url: str) -> Request:
    return post(url)._replace(subscription_id=subscription_id)


async def requested(server: HostileServer, count: int) -> None:
    async with asyncio.timeout(10):
        while len(server.requests) < count:  # noqa: ASYNC110 - the server's side
            await asyncio.sleep(0)


async def taken_in(transport: HttpTransport, host: str = "127.0.0.1") -> None:
    """Wait until the transport has taken in all earlier requests: it answers an invalid request at that moment."""
    assert (await answer_to(transport, post(f"http://{host}:9000/", x="\r\n"))).outcome is Outcome.PROTOCOL


async def test_what_waits_for_its_hosts_turn_is_answered_at_once_and_never_leaves(gate: Gate, server: HostileServer) -> None:
    """Requests under way over kept connections go on, and so do the other waiting requests."""
    async with sending(host_connections_max=2) as transport:
        gate.opens.set()
        await asyncio.gather(*(sent(transport, of("a", server.url)) for _ in range(2)))
        gate.opens.clear()
        under_way = [sent(transport, of("a", server.url)) for _ in range(2)]
        await requested(server, 4)
        waiting = {name: [sent(transport, of(name, server.url)) for _ in range(5)] for name in ("a", "b", "c")}
        transport.withdraw("a")
        assert not any(future.done() for future in waiting["a"])
        assert await asyncio.wait_for(asyncio.gather(*waiting["a"]), 5) == [WITHDRAWN] * 5
        gate.opens.set()
        answers = await asyncio.wait_for(asyncio.gather(*under_way, *waiting["b"], *waiting["c"]), 10)

    assert {answer.outcome for answer in answers} == {Outcome.DELIVERED}
    assert (server.connections, len(server.requests)) == (2, 14)


async def test_what_is_put_in_within_the_same_moment_has_not_begun(server: HostileServer) -> None:
    """The request was sent before it was withdrawn in the same moment; a request that is sent afterwards is not withdrawn."""
    async with sending(host_connections_max=1) as transport:
        first, before = sent(transport, of("b", server.url)), sent(transport, of("a", server.url))
        transport.withdraw("a")
        after = sent(transport, of("a", server.url))
        assert await asyncio.wait_for(before, 5) == WITHDRAWN
        await requested(server, 1)
        assert not first.done()
        assert not after.done()


async def test_what_waits_for_a_name_is_answered_at_once_and_never_leaves() -> None:
    found = threading.Event()

    def lookup(_name: str) -> Sequence[str]:
        found.wait(10)
        return ["127.0.0.1"]

    async with hostile(answering(OK)) as server, sending(lookup=lookup, connect_timeout_s=10.0) as transport:
        url = server.url.replace("127.0.0.1", "hook.example")
        waiting, other = [sent(transport, of("a", url)) for _ in range(3)], sent(transport, of("b", url))
        transport.withdraw("a")
        assert await asyncio.wait_for(asyncio.gather(*waiting), 5) == [WITHDRAWN] * 3
        found.set()
        assert (await asyncio.wait_for(other, 5)).outcome is Outcome.DELIVERED

    assert len(server.requests) == 1


async def test_what_waits_for_one_of_all_connections_is_answered_at_once_and_never_leaves(gate: Gate, server: HostileServer) -> None:
    async with hostile(answering(OK), host="127.0.0.2") as second, sending(connections_max=1) as transport:
        assert (await answer_to(transport, of("a", second.url))).outcome is Outcome.DELIVERED
        first = sent(transport, of("a", server.url))
        await requested(server, 1)
        waiting = sent(transport, of("a", second.url))
        await taken_in(transport)
        transport.withdraw("a")
        assert await asyncio.wait_for(waiting, 5) == WITHDRAWN
        gate.opens.set()
        assert (await asyncio.wait_for(first, 5)).outcome is Outcome.DELIVERED

    assert len(second.requests) == 1


async def test_what_cannot_be_reached_goes_on_to_no_other_address() -> None:
    """The withdrawn request has begun, so its answer is the result of its first address."""
    addresses = ["127.0.0.8", "127.0.0.9"]
    async with (
        hostile(answering(OK), host=addresses[1]) as server,
        black_hole(addresses[0], server.port),
        sending(lookup=lambda _name: addresses, connect_timeout_s=0.5) as transport,
    ):
        waiting, other = (sent(transport, of(name, f"http://two.example:{server.port}/")) for name in ("a", "b"))
        await taken_in(transport, "two.example")
        transport.withdraw("a")
        answers = await asyncio.wait_for(asyncio.gather(waiting, other), 5)

    assert [(answer.outcome, answer.begun) for answer in answers] == [(Outcome.CONNECT, True), (Outcome.DELIVERED, True)]
    assert len(server.requests) == 1


async def test_after_the_end_there_is_nothing_to_withdraw() -> None:
    async with sending() as transport:
        pass
    transport.withdraw("a")


# The dispatcher in virtual time: all sinks share one host, which takes one request at a time

ONE_BY_ONE = {
    "HOOKTIDE_DELIVERY_LANE_PENDING_MAX": "100",
    "HOOKTIDE_DELIVERY_LANE_IN_FLIGHT_MAX": "16",
    "HOOKTIDE_DELIVERY_IN_FLIGHT_MAX": "64",
}


async def waiting_behind(world: World, mode: Mode, count: int = 10) -> list[Record]:
    """Keep one request under way while the others wait for their turn."""
    world.endpoints.at_once = 1
    await started(world, ALPHA, BETA)
    world.endpoints.modes[ALPHA.id] = mode
    records = world.publish(count, "alpha")
    await asyncio.sleep(0.5)
    return records


@pytest.mark.parametrize("by_deletion", [True, False], ids=["deleted", "disabled"])
def test_what_waits_for_its_turn_is_cancelled_without_an_attempt(play: Play, *, by_deletion: bool) -> None:
    async def scenario(world: World) -> None:
        records = await waiting_behind(world, Mode.SILENT)
        if by_deletion:
            world.delete(ALPHA.id)
        else:
            world.change(replace(ALPHA, state=DISABLED))
        await asyncio.sleep(2.0)
        assert deliveries(world, records) == [State.CANCELLED] * 9
        assert {attempts for _, _, attempts in world.store.ends()} == {0}
        await finished(world, within_s=60.0)
        assert world.endpoints.requests == 1
        assert deliveries(world, records) == [State.CANCELLED] * 10

    play(scenario, **ONE_BY_ONE)


def test_what_waits_for_its_turn_while_paused_begins_after_it(play: Play) -> None:
    """A delivery that waited makes its first attempt after the pause."""

    async def scenario(world: World) -> None:
        records = await waiting_behind(world, Mode.SILENT)
        world.change(replace(ALPHA, state=PAUSED))
        world.endpoints.modes.clear()
        await asyncio.sleep(600.0)
        assert world.endpoints.requests == 1
        world.change(ALPHA)
        await finished(world)
        assert deliveries(world, records) == [State.DELIVERED] * 10
        assert {taken.number for taken in world.endpoints.log[1:]} == {1, 2}
        assert len(world.endpoints.log) == 11

    play(scenario, **ONE_BY_ONE)


def test_what_waits_for_its_turn_goes_to_the_sink_of_now(play: Play) -> None:
    async def scenario(world: World) -> None:
        await waiting_behind(world, Mode.SILENT)
        world.change(replace(ALPHA, sink=NEW))
        world.endpoints.modes.clear()
        await finished(world)
        assert [taken.url for taken in world.endpoints.log] == [ALPHA.sink] + [NEW] * 10

    play(scenario, **ONE_BY_ONE)


@pytest.mark.parametrize(("mode", "requests"), [(Mode.FAILING, FAILURES_MAX), (Mode.THROTTLING, 1), (Mode.GONE, 1)])
def test_what_waits_for_its_turn_is_held_back_with_the_others(play: Play, mode: Mode, requests: int) -> None:
    """An open breaker, a pause, or a 410 answer holds them back; no attempt is used up."""

    async def scenario(world: World) -> None:
        world.registry.hears_of_gone = False
        await waiting_behind(world, mode, 16)
        assert world.endpoints.requests == requests
        world.endpoints.modes.clear()
        world.change(replace(ALPHA, sink=NEW))
        world.registry.hears_of_gone = True
        await finished(world)
        late = world.endpoints.log[requests:]
        assert [taken.number for taken in late] == [1] * (16 - requests) + [2] * requests

    play(scenario, HOOKTIDE_DELIVERY_BREAKER_SECONDS="300", HOOKTIDE_DELIVERY_RETRY_DELAYS_SECONDS="60,60", **ONE_BY_ONE)


def test_a_probe_that_is_withdrawn_makes_room_for_the_next(play: Play) -> None:
    async def scenario(world: World) -> None:
        records = await waiting_behind(world, Mode.FAILING, 12)
        world.endpoints.modes[BETA.id] = Mode.SILENT
        world.publish(20, "beta")
        await asyncio.sleep(20.0)
        lane = world.at_work().worker.dispatcher.lanes.lane(ALPHA.id)
        assert lane.sink_health is not None
        assert lane.sink_health.breaker.probing
        requests = [taken for taken in world.endpoints.log if taken.key[1] == ALPHA.id]
        world.change(replace(ALPHA, types=("alpha", "gamma")))
        await asyncio.sleep(0.5)
        assert requests == [taken for taken in world.endpoints.log if taken.key[1] == ALPHA.id]
        world.endpoints.modes.clear()
        await finished(world)
        assert deliveries(world, records) == [State.DELIVERED] * 12

    play(scenario, HOOKTIDE_DELIVERY_BREAKER_SECONDS="10", HOOKTIDE_DELIVERY_RETRY_DELAYS_SECONDS="1,1,1,1,1", **ONE_BY_ONE)


def test_a_stop_begins_nothing_that_waits_for_its_turn(play: Play) -> None:
    """The stop does not wait for them either; they begin after the next start, as first attempts."""

    async def scenario(world: World) -> None:
        records = await waiting_behind(world, Mode.SLOW)
        requests, stops_at = world.endpoints.requests, world.loop.time()
        await world.stop(crash=False)
        assert world.loop.time() - stops_at < 5.0
        assert world.endpoints.requests == requests
        world.endpoints.modes.clear()
        await world.start()
        await finished(world)
        assert deliveries(world, records) == [State.DELIVERED] * 10
        assert [taken.number for taken in world.endpoints.log] == [1] * 10

    play(scenario, **ONE_BY_ONE)


# The service


async def waiting_for(system: System, server: HostileServer, delivering: Delivering) -> subscription_pb2.Subscription:
    """Keep one request under way while four wait for the host's turn."""
    created = await system.subscribe(server.url, "order.*")
    await system.publish(*(cloud_event(str(number)) for number in range(5)))
    await requested(server, 1)
    await delivering.until(5, state=Shown.DELIVERY_STATE_PENDING)
    return created.subscription


async def test_after_a_deletion_no_request_leaves_that_waits(system: System, gate: Gate, server: HostileServer) -> None:
    """Waiting deliveries are cancelled while the request under way still runs."""
    async with system.delivering(HOOKTIDE_DELIVERY_HOST_CONNECTIONS_MAX="1") as delivering:
        subscription = await waiting_for(system, server, delivering)
        await system.registry.delete(system.consumer_id, subscription.id)
        cancelled = await delivering.until(4, state=Shown.DELIVERY_STATE_CANCELLED)
        assert {delivery.attempt_count for delivery in cancelled} == {0}
        gate.opens.set()
        await delivering.until(1, state=Shown.DELIVERY_STATE_DELIVERED)
    assert len(server.requests) == 1


async def test_after_a_change_of_the_sink_what_waits_goes_to_the_new_one(
    system: System, gate: Gate, server: HostileServer, hooks: Receiver
) -> None:
    """The old sink's host need not answer first."""
    async with system.delivering(HOOKTIDE_DELIVERY_HOST_CONNECTIONS_MAX="1") as delivering:
        subscription = await waiting_for(system, server, delivering)
        subscription.sink = hooks.url()
        await system.registry.update(system.consumer_id, subscription, "sink")
        await delivering.until(4, state=Shown.DELIVERY_STATE_DELIVERED)
        assert [hook.attempt for hook in hooks.arrivals] == [1] * 4
        gate.opens.set()
        await delivering.until(5, state=Shown.DELIVERY_STATE_DELIVERED)
    assert len(server.requests) == 1
