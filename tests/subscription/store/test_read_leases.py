"""Read leases: nobody hears of a change before every lease holder has confirmed it or its lease is over."""

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

import grpc
import pytest
import sqlalchemy as sa
from google.protobuf.duration_pb2 import Duration
from hooktide.subscription.v1 import subscription_pb2 as pb

from services.runtime import failpoints
from services.runtime.configuration.settings import SubscriptionSettings
from services.runtime.rpc.channel_and_server import service_metadata
from services.subscription.store.read_leases import LEASE_MAX_S, ReadLeases
from services.subscription.store.startup_checks import open_registry
from tests.support.system.registry import Client, refused, served
from tests.support.virtual_time import VirtualLoop
from tests.support.waiting import PATIENCE_S

# How much longer than the granted lease the registry waits: the holder's clock may run slower.
MARGIN_S = 0.05
Response = TypeVar("Response")
Asking = grpc.aio.StreamStreamCall[pb.AskRevisionRequest, pb.AskRevisionResponse]


def virtually(scene: Callable[[VirtualLoop], Coroutine[Any, Any, None]]) -> None:
    with contextlib.closing(VirtualLoop(1)) as loop:
        loop.run_until_complete(scene(loop))


async def took_s(loop: VirtualLoop, waiting: Coroutine[Any, Any, None]) -> float:
    began = loop.time()
    await waiting
    return loop.time() - began


def test_without_a_lease_nobody_is_waited_for() -> None:
    async def scene(loop: VirtualLoop) -> None:
        leases = ReadLeases(loop, earlier_leases_possible=False)
        assert leases.grant("asked", 3, 0.0, 3) == 0.0
        assert await took_s(loop, leases.wait_until_confirmed(9)) == 0.0

    virtually(scene)


def test_a_holder_is_waited_for_until_it_knows_or_its_lease_is_over() -> None:
    async def scene(loop: VirtualLoop) -> None:
        leases = ReadLeases(loop, earlier_leases_possible=False)
        assert leases.grant("early", 3, 0.2, 3) == 0.2
        assert leases.grant("late", 3, 60.0, 3) == LEASE_MAX_S
        assert await took_s(loop, leases.wait_until_confirmed(3)) == 0.0
        loop.call_later(0.1, leases.confirm, "late", 4)
        loop.call_later(0.12, leases.confirm, "early", 3)
        assert await took_s(loop, leases.wait_until_confirmed(4)) == pytest.approx(0.2 + MARGIN_S)
        loop.call_later(0.1, leases.confirm, "late", 5)
        assert await took_s(loop, leases.wait_until_confirmed(5)) == pytest.approx(0.1)
        assert await took_s(loop, leases.wait_until_confirmed(6)) == pytest.approx(LEASE_MAX_S - 0.1 - 0.2)
        assert await took_s(loop, leases.wait_until_confirmed(7)) == 0.0

    virtually(scene)


def test_a_question_is_a_confirmation_too_and_takes_nothing_from_a_lease_that_runs() -> None:
    async def scene(loop: VirtualLoop) -> None:
        leases = ReadLeases(loop, earlier_leases_possible=False)
        leases.grant("holder", 3, 0.4, 3)
        loop.call_later(0.1, leases.grant, "holder", 4, 0.1, 4)
        assert await took_s(loop, leases.wait_until_confirmed(4)) == pytest.approx(0.1)
        assert await took_s(loop, leases.wait_until_confirmed(5)) == pytest.approx(0.4 + MARGIN_S - 0.1)

    virtually(scene)


def test_who_asks_on_and_on_and_is_behind_holds_nobody_up_any_longer() -> None:
    async def scene(loop: VirtualLoop) -> None:
        leases = ReadLeases(loop, earlier_leases_possible=False)
        assert leases.grant("holder", 3, 0.4, 3) == 0.4
        known = asyncio.ensure_future(took_s(loop, leases.wait_until_confirmed(4)))
        while not known.done():
            assert leases.grant("holder", 3, 0.4, 4) == 0.0
            await asyncio.sleep(0.01)
        assert await known == pytest.approx(0.4 + MARGIN_S)
        assert leases.grant("holder", 4, 0.4, 4) == 0.4

    virtually(scene)


def test_a_lease_that_is_given_back_is_over() -> None:
    async def scene(loop: VirtualLoop) -> None:
        leases = ReadLeases(loop, earlier_leases_possible=False)
        leases.grant("holder", 3, 0.4, 3)
        loop.call_later(0.1, leases.release, "holder")
        assert await took_s(loop, leases.wait_until_confirmed(4)) == pytest.approx(0.1)

    virtually(scene)


def test_what_a_process_before_may_have_granted_is_waited_for() -> None:
    async def scene(loop: VirtualLoop) -> None:
        leases = ReadLeases(loop, earlier_leases_possible=True)
        assert await took_s(loop, leases.wait_until_confirmed(1)) == pytest.approx(LEASE_MAX_S + MARGIN_S)
        assert await took_s(loop, leases.wait_until_confirmed(2)) == 0.0

    virtually(scene)


# Over gRPC


@contextlib.asynccontextmanager
async def asking(client: Client, token: str) -> AsyncIterator[Asking]:
    call: Asking = client.subscriptions.AskRevision(metadata=service_metadata(token))
    try:
        yield call
    finally:
        call.cancel()


async def asked(call: Asking, reached: int, lease_s: float = LEASE_MAX_S) -> pb.AskRevisionResponse:
    await call.write(pb.AskRevisionRequest(reached_revision=reached, lease=Duration(nanos=int(lease_s * 1e9))))
    answer = await call.read()
    assert isinstance(answer, pb.AskRevisionResponse)
    return answer


async def committed(client: Client, revision: int) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while await client.revision() < revision:  # noqa: ASYNC110 - another process could not tell us either
            await asyncio.sleep(0.001)


async def held_until_confirmed(client: Client, call: Asking, change: Coroutine[Any, Any, Response], revision: int) -> Response:
    """Start a change while a lease runs; check that it is not answered before the holder confirms it. Return its answer."""
    loop = asyncio.get_running_loop()
    asked_at = loop.time()
    assert (await asked(call, revision - 1)).lease.ToMilliseconds() == LEASE_MAX_S * 1000
    changing = asyncio.ensure_future(change)
    await committed(client, revision)
    answer = await asked(call, revision - 1)
    assert (answer.revision, answer.HasField("lease")) == (revision, False)
    # On a very slow machine the lease may be over.
    assert not changing.done() or loop.time() - asked_at > LEASE_MAX_S
    await call.write(pb.AskRevisionRequest(reached_revision=revision, confirms=True))
    async with asyncio.timeout(PATIENCE_S):
        return await changing


async def test_a_change_is_answered_once_who_has_a_lease_knows_it(client: Client) -> None:
    owner = await client.consumer()
    async with asking(client, client.token) as call:
        created = (await held_until_confirmed(client, call, client.subscribe(owner), 2)).subscription
        assert await held_until_confirmed(client, call, client.delete(owner, created.id), 3) == 3


async def test_nobody_else_hears_of_it_either(client: Client) -> None:
    """Neither a reader nor a caller that the change refuses hears of it."""
    owner, loop = await client.consumer(), asyncio.get_running_loop()
    created = (await client.subscribe(owner)).subscription
    get, every = pb.GetSubscriptionRequest(consumer_id=owner, id=created.id), pb.ListSubscriptionsRequest(consumer_id=owner)
    async with asking(client, client.token) as call, asyncio.timeout(PATIENCE_S):
        asked_at = loop.time()
        await asked(call, 2)
        deleting = asyncio.ensure_future(client.delete(owner, created.id))
        await committed(client, 3)
        listing = asyncio.ensure_future(client.call(client.subscriptions.ListSubscriptions, every))
        calls = [
            deleting,
            listing,
            asyncio.ensure_future(refused(client.delete(owner, created.id))),
            asyncio.ensure_future(refused(client.call(client.subscriptions.GetSubscription, get))),
        ]
        for _ in range(20):
            await asked(call, 2)
        assert not any(each.done() for each in calls) or loop.time() - asked_at > LEASE_MAX_S
        await call.write(pb.AskRevisionRequest(reached_revision=3, confirms=True))
        await asyncio.gather(*calls)
        assert not (await listing).subscriptions


class Held:
    """Replaces `failpoints.reached`: holds the writer right after its first commit until the test lets it go."""

    def __init__(self) -> None:
        self.committed, self.go_on = threading.Event(), threading.Event()

    def __call__(self, point: str) -> None:
        """Hold the writer at the failpoint after its commit."""
        if point == "registry.after_commit":
            self.committed.set()
            assert self.go_on.wait(PATIENCE_S)


async def test_while_a_change_can_be_seen_and_is_not_noted_nobody_is_told_an_older_revision(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No lease is granted by the old revision either: a reader has seen the change already and relies on it."""
    owner, held = await client.consumer(), Held()
    every = pb.ListSubscriptionsRequest(consumer_id=owner)
    monkeypatch.setattr(failpoints, "reached", held)
    async with asking(client, client.token) as call, asyncio.timeout(PATIENCE_S):
        creating = asyncio.ensure_future(client.subscribe(owner))
        try:
            await asyncio.to_thread(held.committed.wait)
            assert len((await client.call(client.subscriptions.ListSubscriptions, every)).subscriptions) == 1
            answering = asyncio.ensure_future(asked(call, 1))
            told = asyncio.ensure_future(client.revision())
            # An answer that came too early would come before these calls, which take the same path.
            for _ in range(5):
                await client.call(client.subscriptions.ListSubscriptions, every)
        finally:
            held.go_on.set()
        answer = await answering
        assert (answer.revision, answer.HasField("lease")) == (2, False)
        assert await told == 2
        await creating
        assert (await asked(call, 2)).HasField("lease")


async def test_a_commit_that_fails_holds_up_no_question(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = await client.consumer()

    def fail(point: str) -> None:
        if point == "registry.before_commit":
            message = "the commit fails"
            raise sa.exc.DBAPIError(message, None, sqlite3.OperationalError(message))

    monkeypatch.setattr(failpoints, "reached", fail)
    async with asking(client, client.token) as call, asyncio.timeout(PATIENCE_S):
        await refused(client.subscribe(owner))
        monkeypatch.undo()
        answer = await asked(call, 1)
        assert (answer.revision, answer.HasField("lease")) == (1, True)


async def test_who_closes_its_stream_is_not_waited_for(client: Client) -> None:
    owner, loop = await client.consumer(), asyncio.get_running_loop()
    async with asking(client, client.token) as call, asyncio.timeout(PATIENCE_S):
        asked_at = loop.time()
        await asked(call, 1)
        creating = asyncio.ensure_future(client.subscribe(owner))
        await committed(client, 2)
        assert not creating.done() or loop.time() - asked_at > LEASE_MAX_S
        await call.done_writing()
        await creating


async def test_a_holder_that_is_gone_holds_nobody_for_long(client: Client) -> None:
    owner = await client.consumer()
    async with asking(client, client.token) as call:
        await asked(call, 1)
    async with asyncio.timeout(PATIENCE_S):
        await client.subscribe(owner)


async def test_without_leases_a_confirmation_is_heard_and_changes_nothing(client: Client) -> None:
    owner = await client.consumer()
    async with asking(client, client.token) as call, asyncio.timeout(PATIENCE_S):
        await call.write(pb.AskRevisionRequest(reached_revision=1, confirms=True))
        await call.write(pb.AskRevisionRequest(reached_revision=1))
        answer = await call.read()
        assert isinstance(answer, pb.AskRevisionResponse)
        assert (answer.revision, answer.HasField("lease")) == (1, False)
        await client.subscribe(owner)
        assert (await asked(call, 2)).revision == 2


def test_a_registry_that_is_new_was_known_to_nobody(settings: SubscriptionSettings) -> None:
    for is_new in (True, False, False):
        with open_registry(settings) as registry:
            assert registry.database.is_new == is_new


async def test_a_registry_that_was_there_waits_for_those_who_may_know_it(settings: SubscriptionSettings) -> None:
    loop = asyncio.get_running_loop()
    async with served(settings) as client:
        owner = await client.consumer()
    began = loop.time()
    async with served(settings) as client, asyncio.timeout(PATIENCE_S):
        await client.subscribe(owner)
        assert loop.time() - began >= LEASE_MAX_S
