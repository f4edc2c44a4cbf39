"""Damaged secrets: one bit of a stored secret has flipped; its subscription waits, all others go on, and its owner can repair it."""

import contextlib
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from google.protobuf.duration_pb2 import Duration
from hooktide.subscription.v1 import subscription_pb2 as pb
from structlog.testing import capture_logs

from services.runtime.configuration.settings import SubscriptionSettings
from services.runtime.errors import Reason
from tests.support.system.registry import SINK, Client, Watching, refused, served, until_checkpoint

TABLES = ["signing_secrets", "credential_secrets"]


def damage(path: Path, table: str, subscription_id: str) -> None:
    """Flip the last bit of a sealed value."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        query = f"SELECT box FROM {table} WHERE subscription_id = ?"  # noqa: S608 - a name of ours
        (box,) = database.execute(query, (subscription_id,)).fetchone()
        flipped = box[:-1] + bytes([box[-1] ^ 1])
        database.execute(f"UPDATE {table} SET box = ? WHERE subscription_id = ?", (flipped, subscription_id))  # noqa: S608 - the same
        database.commit()


async def subscribed(client: Client, owner: str) -> pb.Subscription:
    credential = pb.SinkCredential(access_token=pb.AccessTokenCredential(token="t"))
    wanted = pb.Subscription(sink=SINK, sink_credential=credential)
    request = pb.CreateSubscriptionRequest(consumer_id=owner, subscription=wanted)
    return (await client.call(client.subscriptions.CreateSubscription, request)).subscription


@contextlib.asynccontextmanager
async def damaged(settings: SubscriptionSettings, table: str) -> AsyncIterator[tuple[Client, pb.Subscription, pb.Subscription]]:
    """Run a registry with two subscriptions; the secret of the first is damaged."""
    async with served(settings) as client:
        owner = await client.consumer()
        hurt, sound = await subscribed(client, owner), await subscribed(client, owner)
    damage(settings.data_dir / "subscription.db", table, hurt.id)
    async with served(settings) as client:
        yield client, hurt, sound


async def puts(stream: Watching) -> dict[str, pb.WatchedSubscription]:
    items, _ = await until_checkpoint(stream)
    return {item.put.subscription.id: item.put for item in items}


@pytest.mark.parametrize("table", TABLES)
async def test_a_damaged_secret_holds_back_its_own_subscription_alone(settings: SubscriptionSettings, table: str) -> None:
    """Watchers get the subscription as paused, so that its events are kept; the log says why."""
    with capture_logs() as lines:
        async with damaged(settings, table) as (client, hurt, sound), client.watch() as stream:
            told = await puts(stream)
    assert told[hurt.id].subscription.state == pb.SUBSCRIPTION_STATE_PAUSED
    assert not told[hurt.id].secrets
    assert not told[hurt.id].HasField("sink_credential")
    assert told[sound.id].subscription.state == pb.SUBSCRIPTION_STATE_ACTIVE
    assert told[sound.id].secrets
    assert told[sound.id].sink_credential.access_token.token == "t"
    alarms = [line for line in lines if line["event"] == "subscription.unreadable"]
    assert [(line["log_level"], line["subscription"]) for line in alarms] == [("error", hurt.id)]


async def test_a_damaged_secret_is_mended_by_another_one(settings: SubscriptionSettings) -> None:
    async with damaged(settings, "signing_secrets") as (client, hurt, _), client.watch() as stream:
        failure = await refused(client.secrets(hurt.consumer_id, hurt.id))
        assert (failure.reason, "rotate with an overlap of 0" in failure.message) == (Reason.STATE_CONFLICT, True)
        await puts(stream)
        request = pb.RotateSecretRequest(consumer_id=hurt.consumer_id, subscription_id=hurt.id, overlap=Duration())
        rotated = await client.rotate(request)
        told = (await puts(stream))[hurt.id]
        assert told.subscription.state == pb.SUBSCRIPTION_STATE_ACTIVE
        assert [secret.secret for secret in told.secrets] == [rotated.secret]


async def test_a_damaged_credential_is_mended_by_another_one(settings: SubscriptionSettings) -> None:
    """An update without the secret cannot keep the old one."""
    async with damaged(settings, "credential_secrets") as (client, hurt, _), client.watch() as stream:
        await puts(stream)
        wanted = pb.Subscription(id=hurt.id, sink_credential=pb.SinkCredential(access_token=pb.AccessTokenCredential()))
        failure = await refused(client.update(hurt.consumer_id, wanted, "sink_credential"))
        assert failure.fields[0].field == "subscription.sink_credential.access_token.token"
        wanted.sink_credential.access_token.token = "u"
        await client.update(hurt.consumer_id, wanted, "sink_credential")
        told = (await puts(stream))[hurt.id]
        assert told.subscription.state == pb.SUBSCRIPTION_STATE_ACTIVE
        assert told.sink_credential.access_token.token == "u"
