import sqlite3
from pathlib import Path

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hooktide.subscription.v1 import access_pb2 as pb

from services.runtime import api_key
from services.runtime.configuration.settings import SubscriptionSettings
from services.runtime.errors import Reason
from tests.support.clock import MovedClock
from tests.support.system.registry import REGISTRY_FILES, Client, refused, served

MISSING_CONSUMER = "con_01a20c749fc2758aaca48e2b5180c201"
MISSING_KEY = "key_01a20c749fc2758aaca48e2b5180c201"


async def key_ids(client: Client) -> list[str]:
    return [key.id for key in (await client.call(client.access.ListKeys, pb.ListKeysRequest())).keys]


async def test_a_consumer_is_created_read_and_listed(client: Client) -> None:
    """Names need not differ."""
    made = [await client.consumer(name) for name in ("Shop", "Shop", "ü" * 200)]
    found = (await client.call(client.access.GetConsumer, pb.GetConsumerRequest(id=made[0]))).consumer
    assert (found.id, found.name) == (made[0], "Shop")
    assert found.HasField("create_time")

    first = await client.call(client.access.ListConsumers, pb.ListConsumersRequest(page_size=2))
    rest = await client.call(client.access.ListConsumers, pb.ListConsumersRequest(page_size=2, page_token=first.next_page_token))
    assert [consumer.id for consumer in [*first.consumers, *rest.consumers]] == made
    assert rest.next_page_token == ""


@pytest.mark.parametrize("name", ["", "   ", "n" * 201])
async def test_a_consumer_needs_a_name_of_up_to_200_characters(client: Client, name: str) -> None:
    failure = await refused(client.consumer(name))
    assert failure.reason is Reason.INVALID_ARGUMENT
    assert [error.field for error in failure.fields] == ["consumer.name"]


async def test_a_missing_consumer_is_not_found(client: Client) -> None:
    missing = client.call(client.access.GetConsumer, pb.GetConsumerRequest(id=MISSING_CONSUMER))
    assert (await refused(missing)).reason is Reason.CONSUMER_NOT_FOUND
    unnamed = client.call(client.access.GetConsumer, pb.GetConsumerRequest())
    assert (await refused(unnamed)).reason is Reason.INVALID_ARGUMENT


@pytest.mark.parametrize("role", [pb.ROLE_ADMIN, pb.ROLE_EMITTER, pb.ROLE_CONSUMER])
async def test_a_key_authenticates_as_what_it_was_created_for(client: Client, role: pb.Role.ValueType) -> None:
    owner = await client.consumer() if role == pb.ROLE_CONSUMER else ""
    made = await client.key(role, owner)
    assert api_key.parse_key(made.clear_text) is not None
    assert made.key.hint == made.clear_text[:8] + "…"
    assert (made.key.role, made.key.consumer_id) == (role, owner)
    assert not made.key.HasField("expire_time")
    assert await client.authenticate(made.clear_text) == made.key
    assert (await client.call(client.access.GetKey, pb.GetKeyRequest(id=made.key.id))).key == made.key


@pytest.mark.parametrize(
    ("wanted", "fields"),
    [
        (pb.Key(), {"key.role"}),
        (pb.Key(role=pb.ROLE_CONSUMER), {"key.consumer_id"}),
        (pb.Key(role=pb.ROLE_ADMIN, consumer_id="con_a"), {"key.consumer_id"}),
        (pb.Key(role=pb.ROLE_EMITTER, consumer_id="con_a", name="n" * 201), {"key.consumer_id", "key.name"}),
        (pb.Key(role=pb.ROLE_ADMIN, expire_time=Timestamp(seconds=1)), {"key.expire_time"}),
        (pb.Key(role=pb.ROLE_ADMIN, expire_time=Timestamp(seconds=1 << 62)), {"key.expire_time"}),
        (pb.Key(role=pb.ROLE_ADMIN, expire_time=Timestamp(seconds=-(1 << 62))), {"key.expire_time"}),
        (pb.Key(expire_time=Timestamp()), {"key.role", "key.expire_time"}),
    ],
)
async def test_a_key_that_makes_no_sense_is_refused(client: Client, wanted: pb.Key, fields: set[str]) -> None:
    failure = await refused(client.call(client.access.CreateKey, pb.CreateKeyRequest(key=wanted)))
    assert failure.reason is Reason.INVALID_ARGUMENT
    assert {error.field for error in failure.fields} == fields


async def test_a_consumers_key_needs_an_existing_consumer(client: Client) -> None:
    assert (await refused(client.key(pb.ROLE_CONSUMER, MISSING_CONSUMER))).reason is Reason.CONSUMER_NOT_FOUND


async def test_a_revoked_key_is_gone_for_good(client: Client) -> None:
    stays, goes = await client.key(pb.ROLE_ADMIN), await client.key(pb.ROLE_ADMIN)
    assert await key_ids(client) == [stays.key.id, goes.key.id]

    await client.call(client.access.RevokeKey, pb.RevokeKeyRequest(id=goes.key.id))

    assert await key_ids(client) == [stays.key.id]
    assert (await refused(client.authenticate(goes.clear_text))).reason is Reason.KEY_INVALID
    for call in (
        client.call(client.access.RevokeKey, pb.RevokeKeyRequest(id=goes.key.id)),
        client.call(client.access.RevokeKey, pb.RevokeKeyRequest(id=MISSING_KEY)),
        client.call(client.access.GetKey, pb.GetKeyRequest(id=goes.key.id)),
    ):
        assert (await refused(call)).reason is Reason.KEY_NOT_FOUND
    assert await client.authenticate(stays.clear_text) == stays.key


async def test_a_key_works_until_it_expires(settings: SubscriptionSettings) -> None:
    clock = MovedClock()
    async with served(settings, clock) as client:
        wanted = pb.Key(role=pb.ROLE_EMITTER, name="nightly", expire_time=Timestamp(seconds=int(clock.time_s) + 60))
        made = await client.call(client.access.CreateKey, pb.CreateKeyRequest(key=wanted))
        assert (made.key.name, made.key.expire_time) == ("nightly", wanted.expire_time)
        clock.time_s += 59
        assert await client.authenticate(made.clear_text) == made.key
        clock.time_s += 1
        assert (await refused(client.authenticate(made.clear_text))).reason is Reason.KEY_INVALID
        assert await key_ids(client) == [made.key.id]


async def test_why_a_key_is_invalid_is_not_told(settings: SubscriptionSettings) -> None:
    clock = MovedClock()
    async with served(settings, clock) as client:
        wanted = pb.Key(role=pb.ROLE_ADMIN, expire_time=Timestamp(seconds=int(clock.time_s) + 1))
        expired = await client.call(client.access.CreateKey, pb.CreateKeyRequest(key=wanted))
        revoked = await client.key(pb.ROLE_ADMIN)
        await client.call(client.access.RevokeKey, pb.RevokeKeyRequest(id=revoked.key.id))
        clock.time_s += 2
        clear = (expired.clear_text, revoked.clear_text, api_key.new_key(), "", "hkt_", "hkt_" + "0" * 49, "x" * 100_000, "hkt_💥")
        together = await client.call(client.access.AuthenticateKeys, pb.AuthenticateKeysRequest(keys=clear))
        assert [result.HasField("key") for result in together.results] == [False] * len(clear)
        failures = [await refused(client.authenticate(text)) for text in clear]
        assert {(failure.reason, failure.message, failure.fields) for failure in failures} == {
            (Reason.KEY_INVALID, failures[0].message, ())
        }


async def test_several_keys_are_authenticated_at_once_each_in_its_place(client: Client) -> None:
    made = [await client.key(role) for role in (pb.ROLE_ADMIN, pb.ROLE_EMITTER)]
    keys = [made[1].clear_text, api_key.new_key(), made[0].clear_text, "hkt_", made[1].clear_text]
    answer = await client.call(client.access.AuthenticateKeys, pb.AuthenticateKeysRequest(keys=keys))
    assert [result.key for result in answer.results] == [made[1].key, pb.Key(), made[0].key, pb.Key(), made[1].key]
    for count in (0, 201):
        refusal = await refused(client.call(client.access.AuthenticateKeys, pb.AuthenticateKeysRequest(keys=["hkt_"] * count)))
        assert refusal.reason is Reason.INVALID_ARGUMENT


async def test_a_malformed_key_is_refused_without_asking_the_database(client: Client, tmp_path: Path) -> None:
    """The column may be missing: only a well-formed key is looked up by it."""
    with sqlite3.connect(tmp_path / "subscription.db") as other:
        other.execute("ALTER TABLE keys RENAME COLUMN lookup TO taken_away")
    other.close()
    assert (await refused(client.authenticate("hkt_malformed"))).reason is Reason.KEY_INVALID
    assert (await refused(client.authenticate(api_key.new_key()))).reason is Reason.INTERNAL


async def test_a_keys_clear_text_is_not_in_the_file(settings: SubscriptionSettings, tmp_path: Path) -> None:
    async with served(settings) as client:
        made = await client.key(pb.ROLE_ADMIN)
        stored = b"".join((tmp_path / name).read_bytes() for name in REGISTRY_FILES)
    random = api_key.parse_key(made.clear_text)
    assert random is not None
    assert made.key.id.encode() in stored
    assert made.clear_text[8:].encode() not in stored
    assert random not in stored


async def test_lists_refuse_each_others_page_tokens(client: Client) -> None:
    for _ in range(2):
        await client.consumer()
        await client.key(pb.ROLE_ADMIN)
    consumers = await client.call(client.access.ListConsumers, pb.ListConsumersRequest(page_size=1))
    listed = await client.call(client.access.ListKeys, pb.ListKeysRequest(page_size=1))
    rest = await client.call(client.access.ListKeys, pb.ListKeysRequest(page_size=1, page_token=listed.next_page_token))
    assert len({key.id for key in [*listed.keys, *rest.keys]}) == 2
    wrong = client.call(client.access.ListKeys, pb.ListKeysRequest(page_token=consumers.next_page_token))
    assert (await refused(wrong)).reason is Reason.PAGE_TOKEN_INVALID
