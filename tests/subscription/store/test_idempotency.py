from pathlib import Path

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from hooktide.subscription.v1 import access_pb2, subscription_pb2

from services.runtime.configuration.settings import SubscriptionSettings
from services.runtime.errors import Reason
from tests.support.clock import MovedClock
from tests.support.system.registry import REGISTRY_FILES, SINK, Client, refused, served

DAY_S = 24 * 3600


def creation(owner: str, request_id: str = "r1", sink: str = SINK) -> subscription_pb2.CreateSubscriptionRequest:
    wanted = subscription_pb2.Subscription(sink=sink)
    return subscription_pb2.CreateSubscriptionRequest(consumer_id=owner, subscription=wanted, request_id=request_id)


async def test_a_creation_sent_twice_is_carried_out_once_and_answered_twice(client: Client) -> None:
    owner = await client.consumer()
    first = await client.call(client.subscriptions.CreateSubscription, creation(owner))
    assert await client.call(client.subscriptions.CreateSubscription, creation(owner)) == first
    assert await client.revision() == first.subscription.revision

    other = await refused(client.call(client.subscriptions.CreateSubscription, creation(owner, sink="https://other.example/")))
    assert other.reason is Reason.IDEMPOTENCY_KEY_REUSED
    assert (await client.call(client.subscriptions.CreateSubscription, creation(owner, "r2"))) != first


async def test_a_request_id_is_its_consumers_own(client: Client) -> None:
    ours, theirs = await client.consumer("A"), await client.consumer("B")
    first = await client.call(client.subscriptions.CreateSubscription, creation(ours))
    second = await client.call(client.subscriptions.CreateSubscription, creation(theirs))
    assert first.subscription.id != second.subscription.id
    assert second.subscription.consumer_id == theirs


async def test_the_first_answer_outlives_a_restart_and_the_subscription(settings: SubscriptionSettings) -> None:
    async with served(settings) as client:
        owner = await client.consumer()
        first = await client.call(client.subscriptions.CreateSubscription, creation(owner))
        await client.delete(owner, first.subscription.id)
    async with served(settings) as client:
        assert await client.call(client.subscriptions.CreateSubscription, creation(owner)) == first


async def test_a_refused_call_leaves_its_request_id_free(client: Client) -> None:
    owner = await client.consumer()
    await refused(client.call(client.subscriptions.CreateSubscription, creation(owner, sink="")))
    assert (await client.call(client.subscriptions.CreateSubscription, creation(owner))).subscription.sink == SINK


async def test_a_request_id_is_forgotten_after_a_day(settings: SubscriptionSettings) -> None:
    clock = MovedClock()
    async with served(settings, clock) as client:
        owner = await client.consumer()
        first = await client.call(client.subscriptions.CreateSubscription, creation(owner))
        clock.time_s += DAY_S - 1
        assert await client.call(client.subscriptions.CreateSubscription, creation(owner)) == first
        clock.time_s += 2
        again = await client.call(client.subscriptions.CreateSubscription, creation(owner))
        assert again.subscription.id != first.subscription.id


async def test_a_rotation_sent_twice_makes_one_secret(client: Client) -> None:
    owner = await client.consumer()
    made = (await client.subscribe(owner)).subscription
    request = subscription_pb2.RotateSecretRequest(consumer_id=owner, subscription_id=made.id, request_id="r")
    first = await client.rotate(request)
    assert await client.rotate(request) == first
    assert len(await client.secrets(owner, made.id)) == 2
    request.overlap.CopyFrom(Duration(seconds=1))
    assert (await refused(client.rotate(request))).reason is Reason.IDEMPOTENCY_KEY_REUSED


async def test_consumers_and_keys_are_created_once_a_request_id(settings: SubscriptionSettings) -> None:
    """A repeated request gets the first answer even if a new request would be refused by then."""
    clock = MovedClock()
    async with served(settings, clock) as client:
        consumer = access_pb2.CreateConsumerRequest(consumer=access_pb2.Consumer(name="Shop"), request_id="r")
        made = await client.call(client.access.CreateConsumer, consumer)
        assert await client.call(client.access.CreateConsumer, consumer) == made

        expire_time = Timestamp(seconds=int(clock.time_s) + 10)
        key = access_pb2.CreateKeyRequest(key=access_pb2.Key(role=access_pb2.ROLE_ADMIN, expire_time=expire_time), request_id="r")
        first = await client.call(client.access.CreateKey, key)
        clock.time_s += 60
        assert await client.call(client.access.CreateKey, key) == first

        consumer.consumer.name, key.key.name = "Other", "Other"
        assert (await refused(client.call(client.access.CreateConsumer, consumer))).reason is Reason.IDEMPOTENCY_KEY_REUSED
        assert (await refused(client.call(client.access.CreateKey, key))).reason is Reason.IDEMPOTENCY_KEY_REUSED


@pytest.mark.parametrize("request_id", ["r" * 300, "ü" * 150, "\x00", "a/b"])
async def test_any_request_id_of_300_bytes_is_taken(client: Client, request_id: str) -> None:
    owner = await client.consumer()
    first = await client.call(client.subscriptions.CreateSubscription, creation(owner, request_id))
    assert await client.call(client.subscriptions.CreateSubscription, creation(owner, request_id)) == first


async def test_a_kept_answer_shows_no_secret_in_the_file(settings: SubscriptionSettings, tmp_path: Path) -> None:
    async with served(settings) as client:
        owner = await client.consumer()
        made = await client.call(client.subscriptions.CreateSubscription, creation(owner))
        key = access_pb2.CreateKeyRequest(key=access_pb2.Key(role=access_pb2.ROLE_ADMIN), request_id="r")
        clear = (await client.call(client.access.CreateKey, key)).clear_text
        stored = b"".join((tmp_path / name).read_bytes() for name in REGISTRY_FILES)
    assert made.subscription.id.encode() in stored
    assert made.secret.secret.removeprefix("whsec_").encode() not in stored
    assert clear.encode() not in stored
