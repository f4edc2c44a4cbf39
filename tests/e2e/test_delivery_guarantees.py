import asyncio
import json
import time
from datetime import datetime

import hooktide
import pytest
from hooktide.subscription.v1 import catalogue_pb2
from standardwebhooks import Webhook

from tests.support.consumers import Consumer, new_consumer
from tests.support.system.processes import System
from tests.support.waiting import PATIENCE_S, until
from tests.support.webhook_receivers.receiver import Receiver, failing_first

STOPS_WITHIN_S = 2.0


async def test_an_event_arrives_signed_at_every_matching_callback_and_nowhere_else(system: System, receiver: Receiver) -> None:
    consumer = await new_consumer(system, "shop watcher")
    exact, wide, other = receiver.endpoint("exact"), receiver.endpoint("wide"), receiver.endpoint("other")
    await consumer.subscribe(exact, ["main.order.created"], source="/shop")
    await consumer.subscribe(wide, ["main.*"])
    await consumer.subscribe(other, ["main.order.paid"])
    async with system.emitter() as emitter:
        receipt = await emitter.emit(
            type="main.order.created",
            source="/shop",
            subject="eu-7",
            data={"id": 7},
            extensions={"traceparent": "00-" + "1" * 32 + "-" + "2" * 16 + "-01"},
        )
    await until(lambda: exact.arrivals and wide.arrivals, PATIENCE_S, "both callbacks are called")
    for arrival in (exact.arrivals[0], wide.arrivals[0]):
        assert arrival.verified
        assert arrival.event_id == receipt.event_id
        assert arrival.headers["content-type"] == "application/cloudevents+json"
        assert arrival.headers["hooktide-attempt"] == "1"
        body = json.loads(arrival.body)
        assert (body["type"], body["source"], body["subject"], body["data"]) == ("main.order.created", "/shop", "eu-7", {"id": 7})
    assert not other.arrivals


async def test_a_delivery_is_tried_again_with_the_same_id_and_bytes_until_it_succeeds(system: System, receiver: Receiver) -> None:
    consumer = await new_consumer(system, "patient")
    endpoint = receiver.endpoint("failing")
    endpoint.status = failing_first(3, 500)
    await consumer.subscribe(endpoint, ["retry.made"])
    async with system.emitter() as emitter:
        receipt = await emitter.emit(type="retry.made", source="/shop", data=[1, 2])
    await until(endpoint.accepted, PATIENCE_S, "the fourth attempt")
    arrivals = endpoint.arrivals
    assert [arrival.status for arrival in arrivals] == [500, 500, 500, 200]
    assert {arrival.event_id for arrival in arrivals} == {receipt.event_id}
    assert len({arrival.body for arrival in arrivals}) == 1
    assert [arrival.headers["hooktide-attempt"] for arrival in arrivals] == ["1", "2", "3", "4"]
    assert all(arrival.verified for arrival in arrivals)

    async def finished() -> dict[str, object]:
        while True:
            (delivery,) = await consumer.deliveries(event=receipt.event_id)
            if delivery["state"] == "delivered":
                return delivery
            await asyncio.sleep(0.02)

    delivery = await asyncio.wait_for(finished(), PATIENCE_S)
    _, shown = await system.call("GET", f"/v1/deliveries/{delivery['id']}", consumer.key)
    attempts = shown["attempts"]
    assert isinstance(attempts, list)
    assert [attempt["status"] for attempt in attempts] == [500, 500, 500, 200]
    assert [attempt["outcome"] for attempt in attempts] == ["status", "status", "status", "delivered"]


async def test_what_waits_for_a_receiver_that_is_down_arrives_when_it_is_back(system: System, receiver: Receiver) -> None:
    consumer = await new_consumer(system, "comes back")
    endpoint = receiver.endpoint("down")
    await consumer.subscribe(endpoint, ["down.made"])
    await receiver.down()
    async with system.emitter() as emitter:
        receipts = await asyncio.gather(*(emitter.emit(type="down.made", source="/shop", data=number) for number in range(40)))
    await receiver.up()
    await until(lambda: len(endpoint.accepted()) == 40, PATIENCE_S, "all that waited")
    assert endpoint.accepted() == {receipt.event_id for receipt in receipts}
    assert all(arrival.verified for arrival in endpoint.arrivals)


async def test_during_a_rotation_each_webhook_verifies_with_the_new_and_the_old_secret(system: System, receiver: Receiver) -> None:
    consumer = await new_consumer(system, "rotates")
    endpoint = receiver.endpoint("rotating")
    subscription_id = await consumer.subscribe(endpoint, ["rotation.made"])
    status, rotated = await system.call(
        "POST", f"/v1/subscriptions/{subscription_id}/secret/rotate", consumer.key, {"overlap_seconds": 3600}
    )
    assert status == 200, rotated
    async with system.emitter() as emitter:
        await emitter.emit(type="rotation.made", source="/shop", data={})
    await until(lambda: endpoint.arrivals, PATIENCE_S, "the webhook")
    arrival = endpoint.arrivals[0]
    assert len(arrival.headers["webhook-signature"].split()) == 2
    for secret in (endpoint.secrets[0], str(rotated["secret"])):
        Webhook(secret).verify(arrival.body, arrival.headers)


async def test_consumers_cannot_see_each_other_and_an_audience_is_respected(system: System, receiver: Receiver) -> None:
    one, two = await new_consumer(system, "one"), await new_consumer(system, "two")
    first, second = receiver.endpoint("one"), receiver.endpoint("two")
    mine = await one.subscribe(first, ["private.*"])
    await two.subscribe(second, ["private.*"])
    async with system.emitter() as emitter:
        to_one = await emitter.emit(type="private.note", source="/shop", data=1, audience=one.id)
        to_both = await emitter.emit(type="private.note", source="/shop", data=2)
    await until(lambda: len(first.accepted()) == 2 and second.accepted(), PATIENCE_S, "the webhooks")
    assert first.accepted() == {to_one.event_id, to_both.event_id}
    assert second.accepted() == {to_both.event_id}
    status, answer = await system.call("GET", f"/v1/subscriptions/{mine}", two.key)
    missing_status, missing = await system.call("GET", f"/v1/subscriptions/{mine[:-1]}{'0' if mine[-1] != '0' else '1'}", two.key)
    assert (status, answer["reason"], answer["detail"]) == (missing_status, missing["reason"], missing["detail"])
    assert status == 404
    status, _ = await system.call("GET", f"/v1/events/{to_one.event_id}", two.key)
    assert status == 404
    status, _ = await system.call("GET", f"/v1/events/{to_one.event_id}", one.key)
    assert status == 200
    assert not [each for each in await two.deliveries() if each["subscription_id"] == mine]


async def test_a_type_that_requires_an_audience_refuses_events_without_one(system: System) -> None:
    event_type = catalogue_pb2.EventType(name="secret.made", audience_required=True)
    await system.catalogue.PutEventType(catalogue_pb2.PutEventTypeRequest(event_type=event_type), metadata=system.metadata)
    async with system.emitter() as emitter:
        with pytest.raises(hooktide.InvalidEvent) as caught:
            await emitter.emit(type="secret.made", source="/shop", data=1)
        assert caught.value.reason == "AUDIENCE_REQUIRED"
        await emitter.emit(type="secret.made", source="/shop", data=1, audience=system.first.consumer_id)


async def test_after_an_unsubscription_what_is_pending_is_cancelled(system: System, receiver: Receiver) -> None:
    """No attempt begins more than two seconds after the answer."""
    consumer = await new_consumer(system, "leaves")
    endpoint = receiver.endpoint("left")
    endpoint.status = lambda: 500
    subscription_id = await consumer.subscribe(endpoint, ["left.made"])
    async with system.emitter() as emitter:
        await asyncio.gather(*(emitter.emit(type="left.made", source="/shop", data=number) for number in range(30)))
        await until(lambda: endpoint.arrivals, PATIENCE_S, "an attempt")
        await asyncio.wait_for(_all_in(consumer, "pending", 30), PATIENCE_S)
        await consumer.unsubscribe(subscription_id)
        answered_s = time.time()
        await emitter.emit(type="left.made", source="/shop", data="late")

    deliveries = await asyncio.wait_for(_all_in(consumer, "cancelled", 30), PATIENCE_S)
    started = [datetime.fromisoformat(at) for each in deliveries for at in await _attempts_of(system, consumer.key, each)]
    assert started
    assert max(started).timestamp() < answered_s + STOPS_WITHIN_S
    assert not endpoint.accepted()


async def _all_in(consumer: Consumer, state: str, count: int) -> list[dict[str, object]]:
    """Wait until there are exactly `count` deliveries, all in one state; return them."""
    while True:
        found = await consumer.deliveries()
        if [each["state"] for each in found] == [state] * count:
            return found
        await asyncio.sleep(0.02)


async def _attempts_of(system: System, key: str, delivery: dict[str, object]) -> list[str]:
    """Return when each attempt of a delivery began."""
    _, shown = await system.call("GET", f"/v1/deliveries/{delivery['id']}", key)
    attempts = shown["attempts"]
    assert isinstance(attempts, list)
    return [str(attempt["started_at"]) for attempt in attempts]
