"""Upgrade: a registry that the schema's first revision wrote is taken over as it is."""

import contextlib
import json
import sqlite3

from alembic import command
from alembic.config import Config
from hooktide.subscription.v1 import subscription_pb2 as pb

from services.runtime.configuration.settings import SubscriptionSettings
from services.runtime.database import connect, open_engine
from services.subscription.store.sqlite import MIGRATIONS
from services.subscription.store.vault import Vault
from tests.support.system.registry import SINK, served, until_checkpoint

OWNER = "con_" + "1" * 32
SECRET = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="


def first_schema(settings: SubscriptionSettings) -> None:
    """Make a registry as the first revision left it, with one subscription."""
    path = settings.data_dir / "subscription.db"
    connect(path).close()
    engine = open_engine(path)
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
    engine.dispose()
    sealed = Vault(settings.secret_keys()).seal(SECRET.encode(), "signing-secret/sub_1")
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("INSERT INTO consumers VALUES (?, 'c', 1)", (OWNER,))
        row = ("sub_1", OWNER, SINK, "HTTP", json.dumps(["a.*"]), "/s", "d", "active", "", 1, 2, 7)
        database.execute(f"INSERT INTO subscriptions VALUES ({', '.join('?' * len(row))})", row)  # noqa: S608 - question marks only
        database.execute("INSERT INTO signing_secrets VALUES ('sub_1', 1, ?, ?, 1, NULL)", (sealed.secret_key_id, sealed.box))
        database.execute("UPDATE registry SET revision = 7, compacted_revision = 7")
        database.commit()


async def test_subscriptions_of_the_first_schema_go_on_with_all_they_had(settings: SubscriptionSettings) -> None:
    first_schema(settings)
    async with served(settings) as client, client.watch() as stream:
        (item,), checkpoint = await until_checkpoint(stream)
        found = item.put.subscription
        assert checkpoint.revision == 7
        assert (found.id, found.sink, list(found.types), found.source, found.revision) == ("sub_1", SINK, ["a.*"], "/s", 7)
        assert (found.sink_revision, found.config) == (7, pb.SubscriptionConfig(description="d"))
        assert found.protocol_settings == pb.ProtocolSettings(content_mode=pb.CONTENT_MODE_STRUCTURED, signatures=[pb.SIGNATURE_SCHEME_V1])
        assert not found.HasField("sink_credential")
        assert [secret.secret for secret in item.put.secrets] == [SECRET]
        after = await client.update(OWNER, pb.Subscription(id="sub_1", source="/t"), "source")
        assert (after.revision, after.sink_revision) == (8, 7)
        _, later = await until_checkpoint(stream)
        assert later.revision == 8
        assert len({"", checkpoint.change_id, later.change_id}) == 3
        for point in (checkpoint, later):
            async with client.watch(point.revision, point.registry_id, point.change_id) as resumed:
                assert (await until_checkpoint(resumed))[1] == later
