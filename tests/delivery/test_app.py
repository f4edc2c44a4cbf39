"""App: delivery as a service, with real gRPC, real HTTP and a real ledger."""

import asyncio
import base64
import json
from pathlib import Path

import aiohttp
import pytest
from google.protobuf.duration_pb2 import Duration
from hooktide.subscription.v1 import subscription_pb2
from standardwebhooks import Webhook

from services.delivery.errors import LeaseLostError
from services.runtime.ids import new_id
from services.runtime.service_process import StartError
from tests.delivery.ledger.stores import SqliteStore
from tests.delivery.system import Delivering, State, System
from tests.support.events import cloud_event
from tests.support.waiting import until, until_so
from tests.support.webhook_receivers.receiver import Receiver

DELIVERED, PENDING, CANCELLED = State.DELIVERY_STATE_DELIVERED, State.DELIVERY_STATE_PENDING, State.DELIVERY_STATE_CANCELLED


async def test_an_event_arrives_signed_as_it_was_published(system: System, hooks: Receiver) -> None:
    """The official library verifies the webhook, the data is the emitter's own bytes, and the ledger knows the delivery."""
    async with system.delivering() as delivering:
        created = await system.subscribe(hooks.url(), "order.*")
        (event_id,) = await system.publish(cloud_event("7", subject="eu-7"))
        await until(lambda: len(hooks.arrivals) == 1)
        (found,) = await delivering.until(1, state=DELIVERED)
        detail = await delivering.delivery(found.id)
    (hook,) = hooks.arrivals
    body = Webhook(created.secret.secret).verify(hook.body, hook.headers)
    assert body == {"specversion": "1.0", "id": "7", "source": "/shop", "type": "order.created", "subject": "eu-7", "data": {"id": 7}}
    assert hook.body.endswith(b'"data":{"id":  7}}')
    assert hook.headers["content-type"] == "application/cloudevents+json"
    assert (hook.event_id, hook.headers["hooktide-subscription-id"], hook.attempt) == (event_id, created.subscription.id, 1)
    assert (found.event_id, found.consumer_id, found.attempt_count, found.last_status) == (event_id, system.consumer_id, 1, 200)
    assert [(attempt.number, attempt.outcome, attempt.status) for attempt in detail.attempts] == [(1, 1, 200)]
    assert len(found.attempts) == 0
    assert detail.finish_time.ToMilliseconds() >= detail.event_time.ToMilliseconds() > 0
    assert not detail.HasField("next_attempt_time")


async def test_failures_are_tried_again_with_the_same_id_and_bytes(system: System, hooks: Receiver) -> None:
    hooks.answer = lambda hook: 200 if hook.attempt == 3 else 500
    async with system.delivering() as delivering:
        created = await system.subscribe(hooks.url(), "order.*")
        await system.publish(cloud_event("7"))
        (found,) = await delivering.until(1, state=DELIVERED)
        detail = await delivering.delivery(found.id)
    assert [hook.attempt for hook in hooks.arrivals] == [1, 2, 3]
    assert len({(hook.event_id, hook.body) for hook in hooks.arrivals}) == 1
    for hook in hooks.arrivals:
        Webhook(created.secret.secret).verify(hook.body, hook.headers)
    outcomes = [(attempt.outcome, attempt.status, attempt.error) for attempt in detail.attempts]
    assert outcomes == [(2, 500, "the server answered 500")] * 2 + [(1, 200, "")]


async def test_an_endpoint_that_is_down_gets_all_once_it_is_back(system: System) -> None:
    """The failures are more than the breaker tolerates, and the endpoint returns on the same port."""
    async with Receiver() as first:
        port = first.port
    async with system.delivering() as delivering:
        await system.subscribe(f"http://127.0.0.1:{port}/hook", "order.*")
        ids = await system.publish(*(cloud_event(str(number)) for number in range(30)))
        await until_so(lambda: _tried(delivering, 5))
        async with Receiver(port) as second:
            await delivering.until(30, state=DELIVERED)
            assert sorted(hook.event_id for hook in second.arrivals) == sorted(ids)


async def _tried(delivering: Delivering, count: int) -> bool:
    """Return whether so many deliveries have failed on an endpoint that takes no connection."""
    return sum(delivery.attempt_count > 0 for delivery in await delivering.deliveries(state=PENDING)) >= count


async def test_a_long_queue_of_a_small_lane_drains_in_order(system: System, hooks: Receiver) -> None:
    """Three hundred deliveries wait and five may be in memory; those never tried arrive in the order of their positions."""
    hooks.answer = lambda _hook: 500
    bounds = {"HOOKTIDE_DELIVERY_LANE_PENDING_MAX": "5", "HOOKTIDE_DELIVERY_LANE_IN_FLIGHT_MAX": "1"}
    async with system.delivering(**bounds) as delivering:
        await system.subscribe(hooks.url(), "order.*")
        receipts = await system.receipts(*(cloud_event(str(number)) for number in range(300)))
        await until(lambda: len(hooks.arrivals) >= 12)
        failed = {hook.event_id for hook in hooks.arrivals}
        hooks.answer = lambda _hook: 200
        await until(lambda: len({hook.event_id for hook in hooks.arrivals}) == 300)
        await until_so(lambda: _drained(delivering))
    positions = {receipt.event_id: receipt.position for receipt in receipts}
    firsts = [positions[hook.event_id] for hook in hooks.arrivals if hook.attempt == 1 and hook.event_id not in failed]
    assert len(firsts) >= 280
    assert firsts == sorted(firsts)


async def _drained(delivering: Delivering) -> bool:
    return not await delivering.deliveries(state=PENDING)


async def test_a_deletion_cancels_what_waits(system: System, hooks: Receiver) -> None:
    hooks.answer = lambda _hook: 500
    async with system.delivering(HOOKTIDE_DELIVERY_RETRY_DELAYS_SECONDS="600,600") as delivering:
        created = await system.subscribe(hooks.url(), "order.*")
        await system.publish(*(cloud_event(str(number)) for number in range(5)))
        await until(lambda: len(hooks.arrivals) == 5)
        await system.registry.delete(system.consumer_id, created.subscription.id)
        cancelled = await delivering.until(5, state=CANCELLED)
        await system.publish(cloud_event("late"))
        marker = await system.subscribe(hooks.url("/marker"), "marker")
        await system.publish(cloud_event("marker", "marker"))
        await until(lambda: any(hook.path == "/marker" for hook in hooks.arrivals))
    assert {delivery.subscription_id for delivery in cancelled} == {created.subscription.id}
    assert len([hook for hook in hooks.arrivals if hook.headers["hooktide-subscription-id"] != marker.subscription.id]) == 5


async def test_an_audience_is_respected(system: System, hooks: Receiver) -> None:
    """An event for one consumer reaches only that consumer's subscriptions."""
    other_id = await system.registry.consumer("Bank")
    async with system.delivering():
        await system.subscribe(hooks.url("/own"), "order.*")
        await system.subscribe(hooks.url("/other"), "order.*", consumer_id=other_id)
        await system.publish(cloud_event("1", audience=other_id), cloud_event("2", audience=new_id("con")), cloud_event("3"))
        await until(lambda: len(hooks.arrivals) == 3)
    arrived = sorted((hook.path, json.loads(hook.body)["id"]) for hook in hooks.arrivals)
    assert arrived == [("/other", "1"), ("/other", "3"), ("/own", "3")]


async def test_during_a_rotation_both_secrets_verify(system: System, hooks: Receiver) -> None:
    """The new secret verifies at once, and the old one until its overlap ends."""
    async with system.delivering():
        created = await system.subscribe(hooks.url(), "order.*")
        old, new = created.secret.secret, "whsec_" + base64.b64encode(b"n" * 32).decode()
        request = subscription_pb2.RotateSecretRequest(
            consumer_id=system.consumer_id, subscription_id=created.subscription.id, secret=new, overlap=Duration(seconds=600)
        )
        await system.registry.rotate(request)
        await system.publish(cloud_event("7"))
        await until(lambda: len(hooks.arrivals) == 1)
    (hook,) = hooks.arrivals
    for secret in (old, new):
        Webhook(secret).verify(hook.body, hook.headers)
    assert len(hook.headers["webhook-signature"].split()) == 2


async def test_after_a_restart_unfinished_deliveries_go_on(system: System, hooks: Receiver) -> None:
    """Nothing is forgotten, delivered events are not sent again, and attempt numbers go on."""
    hooks.answer = lambda hook: 200 if json.loads(hook.body)["id"] == "done" else 500
    slow = {"HOOKTIDE_DELIVERY_RETRY_DELAYS_SECONDS": "2,2,2"}
    async with system.delivering(**slow) as delivering:
        await system.subscribe(hooks.url(), "order.*")
        await system.publish(cloud_event("done"), cloud_event("open"))
        await delivering.until(1, state=DELIVERED)
        await until(lambda: len(hooks.arrivals) == 2)
    await system.publish(cloud_event("while away"))
    hooks.answer = lambda _hook: 200
    async with system.delivering(**slow) as delivering:
        await delivering.until(3, state=DELIVERED)
    arrived = sorted((json.loads(hook.body)["id"], hook.attempt) for hook in hooks.arrivals)
    assert arrived == [("done", 1), ("open", 1), ("open", 2), ("while away", 1)]


async def test_a_second_service_on_the_ledger_is_refused_and_the_first_goes_on(system: System, hooks: Receiver) -> None:
    async with system.delivering() as first:
        await system.subscribe(hooks.url(), "order.*")
        await system.publish(cloud_event("1"))
        await first.until(1, state=DELIVERED)
        with pytest.raises(StartError, match="in use by another process"):
            async with system.delivering():
                pass
        await system.publish(cloud_event("2"))
        await first.until(2, state=DELIVERED)
        assert not first.process.stopping.is_set()


async def test_a_service_whose_lease_was_taken_stops(system: System, hooks: Receiver) -> None:
    """If file locks do not hold, the service fails at its next write, whatever that is."""
    async with system.delivering(HOOKTIDE_HOUSEKEEPING_SECONDS="0.1") as first:
        await system.subscribe(hooks.url(), "order.*")
        await system.publish(cloud_event("1"))
        await first.until(1, state=DELIVERED)
        store = SqliteStore(Path(system.environ["HOOKTIDE_DATA_DIR"]) / "delivery.db")
        async with store.open_beside() as other:
            await other.take_lease("another")
        async with asyncio.timeout(60):
            await first.process.stopping.wait()
        with pytest.raises(LeaseLostError, match="run only one delivery service"):
            first.process.raise_failure()


async def test_it_is_ready_once_it_knows_the_subscriptions(system: System) -> None:
    """Without a registry it reports what it waits for."""
    away = {"HOOKTIDE_SUBSCRIPTION_TARGET": "127.0.0.1:1"}
    async with aiohttp.ClientSession() as session:

        async def readiness(delivering: Delivering) -> tuple[int, str]:
            async with session.get(f"http://{delivering.admin}/readyz") as answer:
                return answer.status, await answer.text()

        async with system.delivering(**away) as delivering:
            status, text = await readiness(delivering)
            assert status == 503
            assert "waiting for the subscription service" in text
        async with system.delivering() as delivering:

            async def ready() -> bool:
                return (await readiness(delivering))[0] == 200

            await until_so(ready)
