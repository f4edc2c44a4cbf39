"""Poison: what a start decides, and, in virtual time, a worker that routing ends again and again."""

import asyncio
import contextlib
from dataclasses import replace

import pytest

from services.delivery.ledger.protocol import ShardCursor
from services.delivery.ledger.rows import RoutingNote
from services.delivery.model import State
from services.delivery.request.request_settings import Subscription
from services.delivery.worker.poison import STARTS_MAX, at_start
from services.eventlog.record import Record
from tests.delivery.conftest import Play
from tests.simulation.registry import PAUSED
from tests.simulation.scenarios import ALPHA, deliveries, started
from tests.simulation.world import World

HERE = ShardCursor(0, 7, "evt_7", "")


@pytest.mark.parametrize(
    ("note", "starts"),
    [
        (None, 1),
        (RoutingNote(7, "", 0), 1),
        (RoutingNote(7, "", 1), 2),
        (RoutingNote(7, "", 2), 3),
        (RoutingNote(6, "", 2), 1),
        (RoutingNote(7, "sub_1", 2), 1),
    ],
)
def test_starts_that_find_the_same_place_are_counted(note: RoutingNote | None, starts: int) -> None:
    assert at_start(note, HERE) == (RoutingNote(7, "", starts), "", 0)


def test_the_event_that_was_being_routed_is_suspected_and_then_set_aside() -> None:
    """Unless it is recorded: then the process has ended later. The next start goes on with care."""
    noted = RoutingNote(5, "", 2, 8, "evt_8")
    assert at_start(noted, HERE) == (RoutingNote(7, "", 3, 8, "evt_8", 1), "", 0)
    assert at_start(noted, ShardCursor(0, 8, "evt_8", "")) == (RoutingNote(8, "", 1), "", 0)
    assert at_start(noted._replace(deaths=1), ShardCursor(0, 9, "evt_9", "")) == (RoutingNote(9, "", 1), "", 0)
    noted = noted._replace(deaths=1)
    assert at_start(noted, HERE) == (RoutingNote(7, "", 3), "evt_8", 8)
    assert at_start(noted, ShardCursor(0, 9, "evt_9", "sub_1")).culprit == ""
    assert at_start(noted, ShardCursor(0, 8, "evt_8", "sub_1")).culprit == "evt_8"


class RoutingError(Exception):
    """What an event does to the worker that routes it."""


def poisoned(world: World) -> None:
    """Let the running worker end when it routes an event of the type `poison`."""
    worker = world.at_work().worker
    match = worker.replica.router.match

    def fail(event_type: str, source: str, audience: str) -> tuple[Subscription, ...]:
        if event_type == "poison":
            raise RoutingError
        return match(event_type, source, audience)

    worker.replica.router.match = fail  # type: ignore[method-assign]  # an event that breaks the real one would be a bug


async def crashes(world: World) -> bool:
    """Start a worker; return whether routing ends it. A worker that is ended is gone."""
    await world.start()
    while not world.at_work().worker.replica.complete:  # noqa: ASYNC110 - time is virtual, looking costs nothing
        await asyncio.sleep(0.001)
    poisoned(world)
    running = world.running
    assert running is not None
    await asyncio.wait({running.task}, timeout=60.0)
    if not running.task.done():
        return False
    assert isinstance(running.task.exception(), BaseExceptionGroup)
    running.transport.abandon()
    await running.stack.aclose()
    world.running = None
    return True


def test_an_event_that_ends_the_worker_again_and_again_is_set_aside_and_those_around_it_arrive(play: Play) -> None:
    """Two of them, among others. What is set aside stays so; it is listed, and readiness tells it."""

    async def scenario(world: World) -> None:
        world.log._expired_before_ms = lambda: 0  # noqa: SLF001 - the log keeps its events
        await started(world, ALPHA)
        assert world.at_work().worker.why_degraded() is None
        await world.stop(crash=True)
        records: list[Record] = []
        poison: list[Record] = []
        for type_ in ("alpha", "poison", "alpha", "alpha", "poison", "alpha"):
            (poison if type_ == "poison" else records).extend(world.publish(1, type_))
        starts = 0
        while await crashes(world):
            starts += 1
            assert starts < 4 * STARTS_MAX
        worker = world.at_work().worker
        rows = await world.at_work().ledger.set_aside(10)
        assert sorted(row.event_id for row in rows) == sorted(record.event_id for record in poison)
        assert "events set aside: 2" in str(worker.why_degraded())
        assert worker.why_not_ready() is None
        assert deliveries(world, records) == [State.DELIVERED] * 4
        await world.stop(crash=False)
        records = world.publish(3, "alpha")
        assert not await crashes(world)
        assert deliveries(world, records) == [State.DELIVERED] * 3

    play(scenario)


def test_a_worker_that_stops_as_told_accuses_nobody(play: Play) -> None:
    async def scenario(world: World) -> None:
        await started(world, replace(ALPHA, state=PAUSED))
        for _ in range(2 * STARTS_MAX):
            await world.stop(crash=False)
            await world.start()
            await asyncio.sleep(1.0)
            assert world.at_work().worker.follower is not None
        note = (await world.at_work().ledger.take_lease("another")).routing_note
        assert note is not None
        assert note.starts == 0
        with contextlib.suppress(BaseExceptionGroup):
            await world.stop(crash=True)

    play(scenario)


async def kill(world: World) -> None:
    """End the running worker at once, as SIGKILL does."""
    await world.stop(crash=True)


def test_a_worker_that_is_killed_while_it_routes_nothing_raises_no_suspicion(play: Play) -> None:
    """Later events are routed as usual, however often this happens."""

    async def scenario(world: World) -> None:
        await started(world, ALPHA)
        for _ in range(3 * STARTS_MAX):
            await kill(world)
            await world.start()
            await asyncio.sleep(1.0)
        records = world.publish(3, "alpha")
        await asyncio.sleep(1.0)
        assert deliveries(world, records) == [State.DELIVERED] * 3
        note = (await world.at_work().ledger.take_lease("another")).routing_note
        assert note is not None
        assert (note.starts, note.event_id) == (1, "")
        with contextlib.suppress(BaseExceptionGroup):
            await kill(world)

    play(scenario)


def test_a_hundred_events_routed_with_care_are_recorded_within_two_seconds(play: Play) -> None:
    """A flush follows each event at once. The event that ended the worker before no longer does, and is not set aside."""

    async def scenario(world: World) -> None:
        world.log._expired_before_ms = lambda: 0  # noqa: SLF001 - the log keeps its events
        await started(world, ALPHA)
        await kill(world)
        world.publish(1, "poison")
        assert await crashes(world)
        await world.start()
        records = world.publish(100, "alpha")
        await asyncio.sleep(2.0)
        assert world.at_work().worker.follower is not None
        assert deliveries(world, records) == [State.DELIVERED] * 100
        assert await world.at_work().ledger.set_aside(10) == []
        await kill(world)

    play(scenario)
