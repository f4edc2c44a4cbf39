"""Test events: made, signed and checked as any event is, and not kept afterwards."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from hooktide.delivery.v1 import delivery_pb2
from hooktide.subscription.v1 import subscription_pb2 as pb
from standardwebhooks import Webhook

from services.eventlog.record import partition_of_event_id
from services.runtime.errors import Reason
from services.runtime.rpc.channel_and_server import service_metadata
from tests.delivery.request.test_oauth2_client import authority, subscribed, tokens
from tests.delivery.system import Delivering, System
from tests.delivery.transport.test_hostile_recorded import delivering as delivering_by_names
from tests.support.dns import Zone, name_server
from tests.support.system.registry import TOKEN, refused
from tests.support.waiting import PATIENCE_S
from tests.support.webhook_receivers.hostile_receivers import answering, hostile, silent, status
from tests.support.webhook_receivers.receiver import Receiver

TAKEN, STATUS = delivery_pb2.ATTEMPT_OUTCOME_DELIVERED, delivery_pb2.ATTEMPT_OUTCOME_STATUS
BLOCKED, CREDENTIAL = delivery_pb2.ATTEMPT_OUTCOME_BLOCKED, delivery_pb2.ATTEMPT_OUTCOME_CREDENTIAL


@pytest.fixture
async def zone() -> AsyncIterator[Zone]:
    """A name server of the test's own."""
    async with name_server() as running:
        yield running


async def sent(running: Delivering, subscription_id: str, consumer_id: str = "*") -> delivery_pb2.SendTestEventResponse:
    """Send a test event."""
    request = delivery_pb2.SendTestEventRequest(consumer_id=consumer_id, subscription_id=subscription_id)
    return await running.stub.SendTestEvent(request, metadata=service_metadata(TOKEN), timeout=PATIENCE_S)


async def test_it_is_a_webhook_like_any_other_and_leaves_nothing_behind(system: System, hooks: Receiver) -> None:
    """The subscription's types need not match, and the subscription may be brand-new."""
    secret = "whsec_" + base64.b64encode(bytes(range(24))).decode()
    async with system.delivering() as running:
        for _ in range(20):
            made = (await system.subscribe(hooks.url(), "another.type", secret=secret)).subscription
            answer = await sent(running, made.id, system.consumer_id)
            hook = hooks.arrivals[-1]
            assert (answer.attempt.outcome, answer.attempt.status, answer.attempt.number) == (TAKEN, 200, 1)
            assert answer.attempt.start_time.ToMilliseconds() > 0
            assert partition_of_event_id(hook.event_id) == 1023
            assert (hook.event_id, hook.attempt, hook.headers["hooktide-subscription-id"]) == (answer.event_id, 1, made.id)
            body = Webhook(secret).verify(hook.body.decode(), hook.headers)
            assert (body["id"], body["type"], body["source"], body["specversion"]) == (answer.event_id, "hooktide.test", "/hooktide", "1.0")
            assert body["data"]["subscription_id"] == made.id
        assert not await running.deliveries()
    assert len(hooks.arrivals) == 20


async def test_a_sink_that_fails_is_told_of_and_neither_asked_again_nor_judged(system: System) -> None:
    async with system.delivering() as running, hostile(answering(status(500, body="out of order"))) as server:
        made = (await system.subscribe(server.url)).subscription
        for _ in range(20):
            answer = await sent(running, made.id)
            assert (answer.attempt.outcome, answer.attempt.status) == (STATUS, 500)
            assert answer.attempt.response_body == "out of order"
            assert answer.attempt.error
        assert not await running.deliveries()
        shown = await system.registry.call(
            system.registry.subscriptions.GetSubscription, pb.GetSubscriptionRequest(consumer_id="*", id=made.id)
        )
        assert shown.subscription.state == pb.SUBSCRIPTION_STATE_ACTIVE
    assert len(server.requests) == 20


async def test_it_goes_nowhere_that_an_event_may_not_go(system: System, zone: Zone) -> None:
    """The check applies to the address that a name leads to when it is dialled."""
    zone.put("inside.example", "10.0.0.1")
    async with delivering_by_names(system, zone) as running, hostile(answering(status(500))) as server:
        zone.flip("flips.example", ["127.0.0.1"], ["169.254.169.254"])
        inside = (await system.subscribe("http://inside.example/")).subscription
        flips = (await system.subscribe(f"http://flips.example:{server.port}/")).subscription
        outcomes = [(await sent(running, each)).attempt for each in (inside.id, flips.id, flips.id)]
    assert [each.outcome for each in outcomes] == [BLOCKED, STATUS, BLOCKED]
    assert not any(text in each.error for each in outcomes for text in ("10.0.0.1", "127.0.0.1"))


async def test_an_access_token_is_fetched_for_it(system: System, hooks: Receiver) -> None:
    """Each test event fetches its own token: the credential is tested too, and without a token nothing is sent."""
    async with authority() as server, system.delivering() as running:
        made = await subscribed(system, hooks.url(), server.port)
        for _ in range(2):
            assert (await sent(running, made.id)).attempt.outcome == TAKEN
        assert tokens(hooks.arrivals) == ["token-1", "token-2"]
        server.status = 503
        attempt = (await sent(running, made.id)).attempt
        assert (attempt.outcome, attempt.status) == (CREDENTIAL, 0)
        assert "503" in attempt.error
    assert len(hooks.arrivals) == 2


async def test_another_consumers_subscription_is_not_there(system: System, hooks: Receiver) -> None:
    other_id = await system.registry.consumer("Bank")
    async with system.delivering() as running:
        made = (await system.subscribe(hooks.url())).subscription
        for consumer_id, subscription_id in ((other_id, made.id), ("*", "sub_" + "0" * 32), ("*", "")):
            assert (await refused(sent(running, subscription_id, consumer_id))).reason is Reason.SUBSCRIPTION_NOT_FOUND
        assert (await refused(sent(running, made.id, ""))).reason is Reason.INVALID_ARGUMENT
        await system.registry.delete(system.consumer_id, made.id)
        assert (await refused(sent(running, made.id))).reason is Reason.SUBSCRIPTION_NOT_FOUND
    assert not hooks.arrivals


async def test_what_is_disabled_is_not_sent_to(system: System, hooks: Receiver) -> None:
    async with system.delivering() as running:
        made = (await system.subscribe(hooks.url())).subscription
        gone = pb.DisableSubscriptionRequest(id=made.id, sink_revision=made.sink_revision, reason="410")
        await system.registry.call(system.registry.subscriptions.DisableSubscription, gone)
        assert (await refused(sent(running, made.id))).reason is Reason.STATE_CONFLICT
    assert not hooks.arrivals


async def test_one_is_under_way_at_a_time(system: System) -> None:
    async with system.delivering(HOOKTIDE_DELIVERY_ATTEMPT_TIMEOUT_SECONDS="1") as running, hostile(silent) as server:
        made = (await system.subscribe(server.url)).subscription
        first = asyncio.ensure_future(sent(running, made.id))
        async with asyncio.timeout(PATIENCE_S):
            while not server.requests:  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(0.01)
        failure = await refused(sent(running, made.id))
        assert failure.reason is Reason.OVERLOADED
        assert failure.retry_after_s == 1.0
        assert (await first).attempt.outcome == delivery_pb2.ATTEMPT_OUTCOME_TIMEOUT
        assert (await sent(running, made.id)).attempt.outcome == delivery_pb2.ATTEMPT_OUTCOME_TIMEOUT


async def test_test_events_of_one_consumer_that_hang_keep_nobody_else_from_testing(system: System, hooks: Receiver) -> None:
    """The consumer has its share, and a call beyond that share fails at once."""
    attacker = await system.registry.consumer("attacker")
    async with system.delivering() as running, hostile(silent) as server:
        made = [(await system.subscribe(server.url, consumer_id=attacker)).subscription for _ in range(32)]
        tests = [asyncio.ensure_future(refused(sent(running, each.id, attacker))) for each in made]
        async with asyncio.timeout(PATIENCE_S):
            while len(server.requests) < 4 or sum(test.done() for test in tests) < 28:  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(0.01)
        assert {test.result().reason for test in tests if test.done()} == {Reason.OVERLOADED}

        mine = (await system.subscribe(hooks.url())).subscription
        assert (await sent(running, mine.id, system.consumer_id)).attempt.outcome == TAKEN
        assert len(server.requests) == 4
        for test in tests:
            test.cancel()
        await asyncio.wait(tests)


async def test_it_is_sent_by_the_latest_settings(system: System, hooks: Receiver) -> None:
    async with system.delivering() as running:
        made = (await system.subscribe(hooks.url("/one"))).subscription
        for path in ("/two", "/three", "/four"):
            request = pb.UpdateSubscriptionRequest(
                consumer_id="*",
                subscription=pb.Subscription(id=made.id, sink=hooks.url(path), protocol_settings=pb.ProtocolSettings(headers={"x": path})),
                update_mask=FieldMask(paths=["sink", "protocol_settings.headers"]),
            )
            await system.registry.call(system.registry.subscriptions.UpdateSubscription, request)
            await sent(running, made.id)
            assert (hooks.arrivals[-1].path, hooks.arrivals[-1].headers["x"]) == (path, path)
        assert json.loads(hooks.arrivals[-1].body)["type"] == "hooktide.test"
