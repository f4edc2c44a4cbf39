import base64
import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from google.protobuf.duration_pb2 import Duration
from hooktide.subscription.v1 import subscription_pb2 as pb

from services.runtime.configuration.settings import SubscriptionSettings
from services.runtime.errors import Reason
from services.subscription.rules.signing_key import key_id, new_private_key, private_key_problem, public_key, short_private_key
from tests.support.clock import MovedClock
from tests.support.system.registry import REGISTRY_FILES, SINK, Client, refused, served, until_checkpoint

SEED = bytes(range(32))
PUBLIC = Ed25519PrivateKey.from_private_bytes(SEED).public_key().public_bytes_raw()


def encoded(prefix: str, raw: bytes) -> str:
    return prefix + base64.b64encode(raw).decode()


async def signed_by_key(client: Client, owner: str) -> pb.Subscription:
    settings = pb.ProtocolSettings(signatures=[pb.SIGNATURE_SCHEME_V1, pb.SIGNATURE_SCHEME_V1A])
    wanted = pb.Subscription(sink=SINK, protocol_settings=settings)
    request = pb.CreateSubscriptionRequest(consumer_id=owner, subscription=wanted)
    return (await client.call(client.subscriptions.CreateSubscription, request)).subscription


async def secrets(client: Client, owner: str, name: str) -> pb.GetSecretsResponse:
    return await client.call(client.subscriptions.GetSecrets, pb.GetSecretsRequest(consumer_id=owner, subscription_id=name))


async def rotated(client: Client, request: pb.RotateSecretRequest) -> pb.RotateSecretResponse:
    return await client.call(client.subscriptions.RotateSecret, request)


async def watched(client: Client) -> pb.WatchedSubscription:
    async with client.watch() as stream:
        (item,), _ = await until_checkpoint(stream)
    return item.put


async def test_a_subscription_signed_by_a_key_has_one_whose_private_half_only_delivery_is_told(settings: SubscriptionSettings) -> None:
    async with served(settings) as client:
        owner = await client.consumer()
        made = await signed_by_key(client, owner)
        shown = await secrets(client, owner, made.id)
        (key,), put = shown.keys, await watched(client)
        assert key.private_key == ""
        raw = base64.b64decode(key.public_key.removeprefix("whpk_"))
        assert key.key_id == hashlib.sha256(raw).hexdigest()[:16]
        (whole,) = put.keys
        private = base64.b64decode(whole.private_key.removeprefix("whsk_"))
        assert Ed25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw() == raw
        assert [secret.secret for secret in put.secrets] == [secret.secret for secret in shown.secrets]
        assert shown.secrets[0].key_id == hashlib.sha256(base64.b64decode(shown.secrets[0].secret[6:])).hexdigest()[:16]
        stored = b"".join((settings.data_dir / name).read_bytes() for name in REGISTRY_FILES)
    assert private not in stored
    assert base64.b64encode(private) not in stored


async def test_a_key_is_made_once_it_is_wanted_and_stays_when_it_is_not(client: Client) -> None:
    owner = await client.consumer()
    made = (await client.subscribe(owner)).subscription
    assert not (await secrets(client, owner, made.id)).keys
    wanted = pb.Subscription(id=made.id, protocol_settings=pb.ProtocolSettings(signatures=[pb.SIGNATURE_SCHEME_V1A]))
    await client.update(owner, wanted, "protocol_settings.signatures")
    first = (await secrets(client, owner, made.id)).keys
    assert len(first) == 1
    await client.update(owner, pb.Subscription(id=made.id), "protocol_settings")
    await client.update(owner, wanted, "protocol_settings.signatures")
    assert (await secrets(client, owner, made.id)).keys == first


async def test_keys_rotate_apart_from_secrets(settings: SubscriptionSettings) -> None:
    clock = MovedClock()
    async with served(settings, clock) as client:
        owner = await client.consumer()
        made = await signed_by_key(client, owner)
        before = await secrets(client, owner, made.id)
        request = pb.RotateSecretRequest(
            consumer_id=owner, subscription_id=made.id, scheme=pb.SIGNATURE_SCHEME_V1A, overlap=Duration(seconds=60), request_id="once"
        )
        answer = await rotated(client, request)
        assert await rotated(client, request) == answer
        assert (answer.HasField("secret"), answer.key.private_key) == (False, "")
        after = await secrets(client, owner, made.id)
        assert after.secrets == before.secrets
        assert [key.public_key for key in after.keys] == [answer.key.public_key, before.keys[0].public_key]
        assert [key.public_key for key in (await watched(client)).keys] == [key.public_key for key in after.keys]
        await rotated(client, pb.RotateSecretRequest(consumer_id=owner, subscription_id=made.id, overlap=Duration()))
        clock.time_s += 60
        last = await secrets(client, owner, made.id)
        assert [key.public_key for key in last.keys] == [answer.key.public_key]
        assert len(last.secrets) == 1
        assert last.secrets != before.secrets


@pytest.mark.parametrize("raw", [SEED, SEED + PUBLIC])
@pytest.mark.parametrize("scheme", [pb.SIGNATURE_SCHEME_UNSPECIFIED, pb.SIGNATURE_SCHEME_V1A])
async def test_a_key_may_be_brought_from_elsewhere(client: Client, raw: bytes, scheme: pb.SignatureScheme.ValueType) -> None:
    """A key's prefix tells its kind; of its two forms, the registry keeps the short one."""
    owner = await client.consumer()
    made = (await client.subscribe(owner)).subscription
    request = pb.RotateSecretRequest(consumer_id=owner, subscription_id=made.id, secret=encoded("whsk_", raw), scheme=scheme)
    assert (await rotated(client, request)).key.public_key == encoded("whpk_", PUBLIC)
    assert [key.private_key for key in (await watched(client)).keys] == [encoded("whsk_", SEED)]
    failure = await refused(rotated(client, request))
    assert [error.field for error in failure.fields] == ["secret"]


@pytest.mark.parametrize(
    ("text", "scheme"),
    [
        (encoded("whsk_", SEED[:31]), pb.SIGNATURE_SCHEME_V1A),
        (encoded("whsk_", SEED + bytes(32)), pb.SIGNATURE_SCHEME_V1A),
        (encoded("whsk_", SEED) + "=", pb.SIGNATURE_SCHEME_V1A),
        (encoded("whsk_", SEED).rstrip("="), pb.SIGNATURE_SCHEME_UNSPECIFIED),
        (encoded("whsec_", SEED), pb.SIGNATURE_SCHEME_V1A),
        (encoded("whsk_", SEED), pb.SIGNATURE_SCHEME_V1),
        (encoded("whpk_", PUBLIC), pb.SIGNATURE_SCHEME_UNSPECIFIED),
    ],
)
async def test_a_key_that_is_none_is_refused_without_being_repeated(
    client: Client, text: str, scheme: pb.SignatureScheme.ValueType
) -> None:
    owner = await client.consumer()
    made = (await client.subscribe(owner)).subscription
    request = pb.RotateSecretRequest(consumer_id=owner, subscription_id=made.id, secret=text, scheme=scheme)
    failure = await refused(rotated(client, request))
    assert (failure.reason, [error.field for error in failure.fields]) == (Reason.INVALID_ARGUMENT, ["secret"])
    assert text[5:] not in failure.message


async def test_a_scheme_that_the_contract_does_not_know_is_named(client: Client) -> None:
    owner = await client.consumer()
    made = (await client.subscribe(owner)).subscription
    request = pb.RotateSecretRequest(consumer_id=owner, subscription_id=made.id)
    request.scheme = 9  # type: ignore[assignment]  # a number from a newer contract
    assert [error.field for error in (await refused(rotated(client, request))).fields] == ["scheme"]


def test_a_made_key_is_well_formed() -> None:
    made = new_private_key()
    assert private_key_problem(made) is None
    assert short_private_key(made) == made
    assert public_key(encoded("whsk_", SEED)) == encoded("whpk_", PUBLIC)
    assert key_id(encoded("whpk_", SEED)) == key_id(encoded("whsec_", SEED))
