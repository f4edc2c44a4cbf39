import base64
import contextlib
import sqlite3
from pathlib import Path

import pytest
from hooktide.subscription.v1 import subscription_pb2 as pb

from services.runtime.configuration.settings import SubscriptionSettings
from services.runtime.errors import Reason
from services.subscription.credential import SECRET, CredentialKind
from tests.support.pem import KEYS, certificate, private_key
from tests.support.system.registry import REGISTRY_FILES, SECRET_KEY, SINK, Client, refused, served, until_checkpoint

CERTIFICATE = certificate(KEYS["ec"])
CREDENTIALS = {
    CredentialKind.PLAIN: pb.SinkCredential(plain=pb.PlainCredential(identifier="shop", secret="canary-one pässword")),
    CredentialKind.ACCESS_TOKEN: pb.SinkCredential(access_token=pb.AccessTokenCredential(token="canary-two", token_type="Token")),
    CredentialKind.HEADER: pb.SinkCredential(header=pb.HeaderCredential(name="x-api-key", value="canary-three value")),
    CredentialKind.OAUTH2: pb.SinkCredential(
        oauth2=pb.OAuth2Credential(token_url="https://id.example/token", client_id="me", client_secret="canary-four", scope="a b")
    ),
    CredentialKind.MTLS: pb.SinkCredential(mtls=pb.MutualTlsCredential(certificate=CERTIFICATE, private_key=private_key(KEYS["ec"]))),
}
SECRETS = {kind: str(getattr(getattr(message, kind.value), SECRET[kind])) for kind, message in CREDENTIALS.items()}


def without_secret(credential: pb.SinkCredential) -> pb.SinkCredential:
    """Return a credential as its owner sees it."""
    shown = pb.SinkCredential()
    shown.CopyFrom(credential)
    kind = CredentialKind(str(shown.WhichOneof("kind")))
    getattr(shown, kind.value).ClearField(SECRET[kind])
    return shown


async def created(client: Client, owner: str, credential: pb.SinkCredential | None) -> pb.Subscription:
    wanted = pb.Subscription(sink=SINK, sink_credential=credential)
    request = pb.CreateSubscriptionRequest(consumer_id=owner, subscription=wanted)
    return (await client.call(client.subscriptions.CreateSubscription, request)).subscription


async def kept(client: Client, subscription_id: str) -> pb.SinkCredential | None:
    """Return what delivery gets of a subscription's credential."""
    async with client.watch() as stream:
        items, _ = await until_checkpoint(stream)
    (watched,) = [item.put for item in items if item.put.subscription.id == subscription_id]
    return watched.sink_credential if watched.HasField("sink_credential") else None


async def changed(client: Client, owner: str, made: pb.Subscription, credential: pb.SinkCredential, *paths: str) -> pb.Subscription:
    return await client.update(owner, pb.Subscription(id=made.id, sink_credential=credential), *paths)


@pytest.mark.parametrize("kind", CredentialKind)
async def test_a_credential_is_shown_without_its_secret_and_watched_with_it(client: Client, kind: CredentialKind) -> None:
    owner = await client.consumer()
    made = await created(client, owner, CREDENTIALS[kind])
    assert made.sink_credential == without_secret(CREDENTIALS[kind])
    assert await kept(client, made.id) == CREDENTIALS[kind]
    read = await client.call(client.subscriptions.GetSubscription, pb.GetSubscriptionRequest(consumer_id=owner, id=made.id))
    listed = await client.call(client.subscriptions.ListSubscriptions, pb.ListSubscriptionsRequest(consumer_id=owner))
    assert read.subscription == made == listed.subscriptions[0]
    async with client.watch() as stream:
        (item,), _ = await until_checkpoint(stream)
        assert item.put.subscription == made


async def test_no_secret_stands_in_the_file_nor_opens_at_another_place(settings: SubscriptionSettings, tmp_path: Path) -> None:
    async with served(settings) as client:
        owner, other = await client.consumer(), await client.consumer()
        made = {kind: await created(client, owner, credential) for kind, credential in CREDENTIALS.items()}
        theirs = await created(client, other, CREDENTIALS[CredentialKind.PLAIN])
        stored = b"".join((tmp_path / name).read_bytes() for name in REGISTRY_FILES)
    stored += (tmp_path / "subscription.db").read_bytes()
    assert made[CredentialKind.MTLS].id.encode() in stored
    for secret in SECRETS.values():
        for line in secret.splitlines()[1:-1] or [secret]:
            assert line.encode() not in stored
            assert base64.b64encode(line.encode()) not in stored
    with contextlib.closing(sqlite3.connect(tmp_path / "subscription.db")) as other_hand:
        query = "SELECT secret_key_id, box FROM credential_secrets WHERE subscription_id = ?"
        box = other_hand.execute(query, (theirs.id,)).fetchone()
        move = "UPDATE credential_secrets SET secret_key_id = ?, box = ? WHERE subscription_id = ?"
        other_hand.execute(move, (*box, made[CredentialKind.PLAIN].id))
        other_hand.commit()
    async with served(settings) as client, client.watch() as stream:
        items, _ = await until_checkpoint(stream)
    moved = {item.put.subscription.id: item.put for item in items}[made[CredentialKind.PLAIN].id]
    assert not moved.HasField("sink_credential")
    assert moved.subscription.state == pb.SUBSCRIPTION_STATE_PAUSED


async def test_nothing_that_is_refused_repeats_a_secret(client: Client) -> None:
    owner = await client.consumer()
    made = await created(client, owner, None)
    wrong = [
        pb.SinkCredential(plain=pb.PlainCredential(identifier="a:b", secret="canary\nword")),
        pb.SinkCredential(access_token=pb.AccessTokenCredential(token="canary token", token_type="a b")),
        pb.SinkCredential(header=pb.HeaderCredential(name="host", value="canary\r\nx: y")),
        pb.SinkCredential(
            oauth2=pb.OAuth2Credential(token_url="http://10.0.0.1/", client_id="é", client_secret="canary\x00", scope="a  b")
        ),
        pb.SinkCredential(mtls=pb.MutualTlsCredential(certificate=CERTIFICATE, private_key="-----BEGIN PRIVATE KEY-----\ncanary")),
    ]
    for credential in wrong:
        failure = await refused(changed(client, owner, made, credential, "sink_credential"))
        assert failure.reason is Reason.INVALID_ARGUMENT
        kind = credential.WhichOneof("kind")
        assert {error.field.rpartition(".")[0] for error in failure.fields} == {f"subscription.sink_credential.{kind}"}
        inner = getattr(credential, str(kind))
        assert len(failure.fields) == sum(1 for field in inner.DESCRIPTOR.fields if field.name != "certificate")
        assert "canary" not in f"{failure.message}{failure.fields}"


@pytest.mark.parametrize(
    ("credential", "members"),
    [
        (pb.SinkCredential(plain=pb.PlainCredential()), {"plain.identifier", "plain.secret"}),
        (pb.SinkCredential(access_token=pb.AccessTokenCredential()), {"access_token.token"}),
        (pb.SinkCredential(header=pb.HeaderCredential()), {"header.name", "header.value"}),
        (pb.SinkCredential(oauth2=pb.OAuth2Credential()), {"oauth2.token_url", "oauth2.client_id", "oauth2.client_secret"}),
        (pb.SinkCredential(mtls=pb.MutualTlsCredential()), {"mtls.certificate", "mtls.private_key"}),
        (pb.SinkCredential(plain=pb.PlainCredential(identifier="a" * 257, secret="s" * 1025)), {"plain.identifier", "plain.secret"}),
        (pb.SinkCredential(access_token=pb.AccessTokenCredential(token="t" * 8193)), {"access_token.token"}),
        (pb.SinkCredential(header=pb.HeaderCredential(name="Webhook-Id", value="v")), {"header.name"}),
        (
            pb.SinkCredential(oauth2=pb.OAuth2Credential(token_url="https://127.0.0.1/t", client_id="c", client_secret="s")),
            {"oauth2.token_url"},
        ),
    ],
)
async def test_every_wrong_member_is_named(client: Client, credential: pb.SinkCredential, members: set[str]) -> None:
    owner = await client.consumer()
    failure = await refused(created(client, owner, credential))
    assert {error.field for error in failure.fields} == {f"subscription.sink_credential.{member}" for member in members}


async def test_what_is_left_out_has_its_default(client: Client) -> None:
    owner = await client.consumer()
    made = await created(client, owner, pb.SinkCredential(access_token=pb.AccessTokenCredential(token="t")))
    assert made.sink_credential.access_token.token_type == "Bearer"
    made = await created(client, owner, pb.SinkCredential(header=pb.HeaderCredential(name="Authorization", value="Custom abc")))
    assert made.sink_credential.header.name == "authorization"
    made = await created(client, owner, pb.SinkCredential())
    assert not made.HasField("sink_credential")


@pytest.mark.parametrize("kind", CredentialKind)
async def test_a_credential_put_without_its_secret_keeps_it(client: Client, kind: CredentialKind) -> None:
    """If nothing else differs either, the subscription does not change."""
    owner = await client.consumer()
    made = await created(client, owner, CREDENTIALS[kind])
    again = await changed(client, owner, made, made.sink_credential, "sink_credential")
    assert again == made
    assert await kept(client, made.id) == CREDENTIALS[kind]


async def test_a_new_secret_is_a_change_though_it_does_not_show(client: Client) -> None:
    owner = await client.consumer()
    made = await created(client, owner, CREDENTIALS[CredentialKind.PLAIN])
    new = pb.SinkCredential(plain=pb.PlainCredential(identifier="shop", secret="another"))
    after = await changed(client, owner, made, new, "sink_credential")
    assert after.revision == made.revision + 1
    assert after.sink_credential == made.sink_credential
    assert await kept(client, made.id) == new
    assert await changed(client, owner, made, new, "sink_credential") == after


async def test_a_credential_of_another_kind_needs_its_own_secret_and_leaves_nothing_of_the_former(client: Client) -> None:
    owner = await client.consumer()
    made = await created(client, owner, CREDENTIALS[CredentialKind.PLAIN])
    header = pb.SinkCredential(header=pb.HeaderCredential(name="x-api-key"))
    failure = await refused(changed(client, owner, made, header, "sink_credential"))
    assert [error.field for error in failure.fields] == ["subscription.sink_credential.header.value"]
    header.header.value = "v"
    await changed(client, owner, made, header, "sink_credential")
    assert await kept(client, made.id) == header
    back = pb.SinkCredential(plain=pb.PlainCredential(identifier="shop"))
    failure = await refused(changed(client, owner, made, back, "sink_credential"))
    assert [error.field for error in failure.fields] == ["subscription.sink_credential.plain.secret"]


async def test_a_credential_can_be_taken_away(client: Client) -> None:
    owner = await client.consumer()
    made = await created(client, owner, CREDENTIALS[CredentialKind.OAUTH2])
    after = await client.update(owner, pb.Subscription(id=made.id), "sink_credential")
    assert not after.HasField("sink_credential")
    assert await kept(client, made.id) is None
    failure = await refused(changed(client, owner, made, made.sink_credential, "sink_credential"))
    assert [error.field for error in failure.fields] == ["subscription.sink_credential.oauth2.client_secret"]


async def test_single_members_change_alone(client: Client) -> None:
    owner = await client.consumer()
    made = await created(client, owner, CREDENTIALS[CredentialKind.OAUTH2])
    wanted = pb.SinkCredential(oauth2=pb.OAuth2Credential(scope="c", client_id="ignored", client_secret="new"))
    await changed(client, owner, made, wanted, "sink_credential.oauth2.scope", "sink_credential.oauth2.client_secret")
    expected = pb.SinkCredential()
    expected.CopyFrom(CREDENTIALS[CredentialKind.OAUTH2])
    expected.oauth2.scope, expected.oauth2.client_secret = "c", "new"
    assert await kept(client, made.id) == expected


async def test_single_members_of_another_kind_begin_an_empty_one(client: Client) -> None:
    owner = await client.consumer()
    made = await created(client, owner, CREDENTIALS[CredentialKind.OAUTH2])
    wanted = pb.SinkCredential(plain=pb.PlainCredential(identifier="shop", secret="s"))
    failure = await refused(changed(client, owner, made, wanted, "sink_credential.plain.identifier"))
    assert [error.field for error in failure.fields] == ["subscription.sink_credential.plain.secret"]
    await changed(client, owner, made, wanted, "sink_credential.plain.identifier", "sink_credential.plain.secret")
    assert await kept(client, made.id) == wanted


async def test_a_secret_member_named_and_left_empty_is_missed(client: Client) -> None:
    owner = await client.consumer()
    made = await created(client, owner, CREDENTIALS[CredentialKind.PLAIN])
    failure = await refused(changed(client, owner, made, pb.SinkCredential(plain=pb.PlainCredential()), "sink_credential.plain.secret"))
    assert [error.field for error in failure.fields] == ["subscription.sink_credential.plain.secret"]


@pytest.mark.parametrize(
    "paths",
    [
        ("sink_credential.plain",),
        ("sink_credential.plain.token",),
        ("sink_credential.kind",),
        ("sink_credential.plain.secret", "sink_credential.header.value"),
    ],
)
async def test_a_mask_names_members_of_one_kind(client: Client, paths: tuple[str, ...]) -> None:
    owner = await client.consumer()
    made = await created(client, owner, None)
    failure = await refused(changed(client, owner, made, CREDENTIALS[CredentialKind.PLAIN], *paths))
    assert {error.field.partition(".")[0] for error in failure.fields} == {"update_mask"}


async def test_a_renewed_certificate_goes_with_the_kept_key_only_where_it_is_its_own(client: Client) -> None:
    owner = await client.consumer()
    made = await created(client, owner, CREDENTIALS[CredentialKind.MTLS])
    renewed = pb.SinkCredential(mtls=pb.MutualTlsCredential(certificate=certificate(KEYS["ec"], "renewed.example")))
    assert (await changed(client, owner, made, renewed, "sink_credential")).sink_credential == renewed
    foreign = pb.SinkCredential(mtls=pb.MutualTlsCredential(certificate=certificate(KEYS["rsa"])))
    failure = await refused(changed(client, owner, made, foreign, "sink_credential"))
    assert [error.field for error in failure.fields] == ["subscription.sink_credential.mtls.private_key"]


async def test_a_header_is_either_a_credential_or_a_setting(client: Client) -> None:
    owner = await client.consumer()
    made = await created(client, owner, CREDENTIALS[CredentialKind.HEADER])
    clash = pb.Subscription(id=made.id, protocol_settings=pb.ProtocolSettings(headers={"X-API-Key": "v"}))
    failure = await refused(client.update(owner, clash, "protocol_settings"))
    assert [error.field for error in failure.fields] == ["subscription.sink_credential.header.name"]


async def test_a_secret_key_is_needed_as_long_as_a_credential_is_sealed_with_it(settings: SubscriptionSettings) -> None:
    """A change seals the credential with the newest key; a deletion of the subscription deletes its credential."""
    second = "k2:" + base64.b64encode(bytes(32)).decode()
    both = settings.model_copy(update={"secret_key": f"{second},{SECRET_KEY}"})
    async with served(settings) as client:
        owner = await client.consumer()
        first, last = [await created(client, owner, CREDENTIALS[CredentialKind.PLAIN]) for _ in range(2)]
    async with served(both) as client:
        assert await kept(client, first.id) == CREDENTIALS[CredentialKind.PLAIN]
        new = pb.SinkCredential(plain=pb.PlainCredential(identifier="renamed"))
        await changed(client, owner, first, new, "sink_credential.plain.identifier")
        assert await kept(client, first.id) == pb.SinkCredential(
            plain=pb.PlainCredential(identifier="renamed", secret=SECRETS[CredentialKind.PLAIN])
        )
        await client.delete(owner, last.id)
    with contextlib.closing(sqlite3.connect(settings.data_dir / "subscription.db")) as database:
        assert [tuple(row) for row in database.execute("SELECT subscription_id, secret_key_id FROM credential_secrets")] == [
            (first.id, "k2")
        ]


async def test_a_creation_sent_twice_gives_the_first_answer_without_the_secret(client: Client) -> None:
    owner = await client.consumer()
    wanted = pb.Subscription(sink=SINK, sink_credential=CREDENTIALS[CredentialKind.PLAIN])
    request = pb.CreateSubscriptionRequest(consumer_id=owner, subscription=wanted, request_id="once")
    first = await client.call(client.subscriptions.CreateSubscription, request)
    assert await client.call(client.subscriptions.CreateSubscription, request) == first
    assert SECRETS[CredentialKind.PLAIN] not in str(first)
    request.subscription.sink_credential.plain.secret = "another"
    assert (await refused(client.call(client.subscriptions.CreateSubscription, request))).reason is Reason.IDEMPOTENCY_KEY_REUSED
