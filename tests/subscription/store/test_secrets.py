import base64
from pathlib import Path

import pytest
from google.protobuf.duration_pb2 import Duration
from hooktide.subscription.v1 import subscription_pb2 as pb

from services.runtime.configuration.settings import SubscriptionSettings
from services.runtime.errors import Reason
from services.subscription.rules.signing_secret import new_secret, secret_problem
from tests.support.clock import MovedClock
from tests.support.system.registry import REGISTRY_FILES, Client, refused, served, until_checkpoint

HOUR_S = 3600


def given(size_bytes: int) -> str:
    return "whsec_" + base64.b64encode(bytes(range(size_bytes))).decode()


async def test_secrets_never_stand_in_the_file_in_clear(settings: SubscriptionSettings, tmp_path: Path) -> None:
    """The file holds neither their text nor their bytes, whether the registry made them or the owner gave them."""
    async with served(settings) as client:
        owner = await client.consumer()
        made = await client.subscribe(owner)
        rotated = await client.rotate(pb.RotateSecretRequest(consumer_id=owner, subscription_id=made.subscription.id, secret=given(40)))
        stored = b"".join((tmp_path / name).read_bytes() for name in REGISTRY_FILES)
    stored += (tmp_path / "subscription.db").read_bytes()
    assert made.subscription.id.encode() in stored
    for secret in (made.secret.secret, rotated.secret):
        encoded = secret.removeprefix("whsec_")
        assert encoded.encode() not in stored
        assert base64.b64decode(encoded) not in stored


async def test_each_subscription_has_a_secret_of_its_own(client: Client) -> None:
    owner = await client.consumer()
    made = [(await client.subscribe(owner)).secret.secret for _ in range(3)]
    assert len(set(made)) == 3
    assert all(secret_problem(secret) is None and len(base64.b64decode(secret.removeprefix("whsec_"))) == 32 for secret in made)


@pytest.mark.parametrize("size_bytes", [24, 64])
async def test_a_secret_may_be_brought_from_elsewhere(client: Client, size_bytes: int) -> None:
    owner = await client.consumer()
    wanted = pb.Subscription(sink="https://consumer.example/")
    request = pb.CreateSubscriptionRequest(consumer_id=owner, subscription=wanted, secret=given(size_bytes))
    answer = await client.call(client.subscriptions.CreateSubscription, request)
    assert answer.secret.secret == given(size_bytes)
    assert await client.secrets(owner, answer.subscription.id) == [given(size_bytes)]


@pytest.mark.parametrize(
    "secret",
    [
        given(23),
        given(65),
        given(32).removeprefix("whsec_"),
        given(32) + "=",
        given(32).rstrip("="),
        given(32)[:-2] + "9=",
        given(32) + "\n",
        "whsec_",
        "whsec_ä",
    ],
)
async def test_a_secret_that_is_none_is_refused_without_being_repeated(client: Client, secret: str) -> None:
    owner = await client.consumer()
    made = (await client.subscribe(owner)).subscription
    failure = await refused(client.rotate(pb.RotateSecretRequest(consumer_id=owner, subscription_id=made.id, secret=secret)))
    assert failure.reason is Reason.INVALID_ARGUMENT
    assert [error.field for error in failure.fields] == ["secret"]
    assert secret == "whsec_" or secret not in failure.message


def test_a_made_secret_is_well_formed() -> None:
    assert secret_problem(new_secret()) is None


async def test_a_rotation_is_a_change_and_the_old_secret_stays_for_the_overlap(settings: SubscriptionSettings) -> None:
    clock = MovedClock()
    async with served(settings, clock) as client:
        owner = await client.consumer()
        made = await client.subscribe(owner)
        name = made.subscription.id

        second = await client.rotate(pb.RotateSecretRequest(consumer_id=owner, subscription_id=name))

        assert await client.revision() == made.subscription.revision + 1
        assert await client.secrets(owner, name) == [second.secret, made.secret.secret]
        answer = await client.call(client.subscriptions.GetSecrets, pb.GetSecretsRequest(consumer_id="*", subscription_id=name))
        assert not answer.secrets[0].HasField("expire_time")
        assert answer.secrets[1].expire_time.seconds == int(clock.time_s) + 24 * HOUR_S

        clock.time_s += 24 * HOUR_S - 1
        assert await client.secrets(owner, name) == [second.secret, made.secret.secret]
        clock.time_s += 1
        assert await client.secrets(owner, name) == [second.secret]


async def test_a_later_rotation_shortens_what_remains_and_never_lengthens_it(settings: SubscriptionSettings) -> None:
    clock = MovedClock()
    async with served(settings, clock) as client:
        owner = await client.consumer()
        made = await client.subscribe(owner)

        async def rotate(overlap_s: int) -> str:
            request = pb.RotateSecretRequest(consumer_id=owner, subscription_id=made.subscription.id, overlap=Duration(seconds=overlap_s))
            return (await client.rotate(request)).secret

        second = await rotate(HOUR_S)
        third = await rotate(7 * 24 * HOUR_S)
        clock.time_s += HOUR_S
        assert await client.secrets(owner, made.subscription.id) == [third, second]
        fourth = await rotate(0)
        assert await client.secrets(owner, made.subscription.id) == [fourth]


@pytest.mark.parametrize("overlap", [Duration(seconds=-1), Duration(seconds=7 * 24 * HOUR_S, nanos=1_000_000), Duration(nanos=-1)])
async def test_an_overlap_is_between_nothing_and_seven_days(client: Client, overlap: Duration) -> None:
    owner = await client.consumer()
    made = (await client.subscribe(owner)).subscription
    failure = await refused(client.rotate(pb.RotateSecretRequest(consumer_id=owner, subscription_id=made.id, overlap=overlap)))
    assert [error.field for error in failure.fields] == ["overlap"]


async def test_a_secret_in_use_cannot_be_put_in_place_again(client: Client) -> None:
    owner = await client.consumer()
    made = await client.subscribe(owner)
    request = pb.RotateSecretRequest(consumer_id=owner, subscription_id=made.subscription.id, secret=made.secret.secret)
    assert [error.field for error in (await refused(client.rotate(request))).fields] == ["secret"]


async def test_the_secrets_in_use_at_once_are_bounded(client: Client) -> None:
    owner = await client.consumer()
    made = (await client.subscribe(owner)).subscription
    request = pb.RotateSecretRequest(consumer_id=owner, subscription_id=made.id)
    for _ in range(9):
        await client.rotate(request)
    failure = await refused(client.rotate(request))
    assert failure.reason is Reason.STATE_CONFLICT
    assert len(await client.secrets(owner, made.id)) == 10
    last = await client.rotate(pb.RotateSecretRequest(consumer_id=owner, subscription_id=made.id, overlap=Duration()))
    assert await client.secrets(owner, made.id) == [last.secret]


async def test_a_watch_carries_the_live_secrets_and_no_expired_one(settings: SubscriptionSettings) -> None:
    clock = MovedClock()
    async with served(settings, clock) as client:
        owner = await client.consumer()
        made = await client.subscribe(owner)
        async with client.watch() as stream:
            (item,), _ = await until_checkpoint(stream)
            assert [secret.secret for secret in item.put.secrets] == [made.secret.secret]

            request = pb.RotateSecretRequest(consumer_id=owner, subscription_id=made.subscription.id, overlap=Duration(seconds=60))
            second = await client.rotate(request)
            (item,), checkpoint = await until_checkpoint(stream)
            assert item.put.subscription.revision == checkpoint.revision == 3
            assert [secret.secret for secret in item.put.secrets] == [second.secret, made.secret.secret]
            assert item.put.secrets[1].expire_time.seconds == int(clock.time_s) + 60
        clock.time_s += 60
        async with client.watch() as stream:
            (item,), _ = await until_checkpoint(stream)
            assert [secret.secret for secret in item.put.secrets] == [second.secret]
