import asyncio
import base64
import contextlib
import json
import sqlite3
from pathlib import Path

import aiohttp
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc
from hooktide.subscription.v1 import access_pb2, catalogue_pb2, system_pb2
from hooktide.subscription.v1 import subscription_pb2 as pb

from services.runtime.configuration.settings import SubscriptionSettings
from services.runtime.errors import Reason
from services.runtime.rpc.channel_and_server import open_channel
from services.runtime.service_process import ServiceProcess, StartError, serve_until_stopped
from services.subscription.app import running
from services.subscription.bootstrap import FIRST_CONSUMER, bootstrap
from services.subscription.store.schema import metadata
from services.subscription.store.startup_checks import open_registry
from tests.support.clock import MovedClock
from tests.support.system.registry import SECRET_KEY, refused, served

DAY_S = 24 * 3600
SECOND_KEY = "k2:" + base64.b64encode(bytes(32)).decode()
SAME_ID_OTHER_KEY = "k1:" + base64.b64encode(bytes(32)).decode()


def with_secret_key(settings: SubscriptionSettings, value: str) -> SubscriptionSettings:
    return settings.model_copy(update={"secret_key": value})


def refusal(settings: SubscriptionSettings) -> str:
    with pytest.raises(StartError) as caught, open_registry(settings):
        pass
    message = str(caught.value)
    assert "\n" not in message
    return message


async def filled(settings: SubscriptionSettings) -> tuple[str, str, str]:
    """Run a registry just long enough to make a consumer, a subscription and a key; return them."""
    async with served(settings) as client:
        owner = await client.consumer()
        return owner, (await client.subscribe(owner)).subscription.id, (await client.key(access_pb2.ROLE_ADMIN)).clear_text


async def test_a_new_registry_begins_with_revision_1_and_keeps_its_identity(settings: SubscriptionSettings) -> None:
    seen = []
    for _ in range(2):
        with open_registry(settings) as registry:
            seen.append((registry.registry_id, *registry.latest))
    assert seen[0] == seen[1]
    assert seen[0][1] == 1


def test_the_migrations_make_the_tables_that_the_code_uses(settings: SubscriptionSettings) -> None:
    with open_registry(settings) as registry, registry.database.writer.connect() as connection:
        # `meta` names the layout; a start reads it before there is a schema.
        options = {"compare_type": True, "include_name": lambda name, kind, _parents: (kind, name) != ("table", "meta")}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, metadata) == []
        indexes = {row[1] for row in connection.exec_driver_sql("SELECT type, name FROM sqlite_master WHERE type = 'index'")}
        assert {index.name for table in metadata.tables.values() for index in table.indexes} <= indexes


async def test_a_wrong_secret_key_is_found_at_the_start(settings: SubscriptionSettings) -> None:
    """The check works even if there is nothing to open yet, and the message shows no key."""
    with open_registry(settings):
        pass
    wrong = with_secret_key(settings, SAME_ID_OTHER_KEY)
    assert "HOOKTIDE_SECRET_KEY" in refusal(wrong)
    await filled(settings)
    assert "'k1'" in refusal(wrong)
    assert SAME_ID_OTHER_KEY.partition(":")[2] not in refusal(wrong)
    with pytest.raises(StartError):
        async with served(wrong):
            pass
    with pytest.raises(StartError):
        bootstrap(wrong)


async def test_a_secret_key_that_is_still_needed_is_missed_at_the_start(settings: SubscriptionSettings) -> None:
    await filled(settings)
    message = refusal(with_secret_key(settings, SECOND_KEY))
    assert "does not have the key 'k1'" in message


async def test_after_a_new_secret_key_everything_old_still_works(settings: SubscriptionSettings) -> None:
    owner, subscription_id, clear = await filled(settings)
    rotated = with_secret_key(settings, f"{SECOND_KEY},{SECRET_KEY}")
    async with served(rotated) as client:
        assert len(await client.secrets(owner, subscription_id)) == 1
        assert (await client.authenticate(clear)).role == access_pb2.ROLE_ADMIN
        newer = await client.key(access_pb2.ROLE_EMITTER)
        assert (await client.authenticate(newer.clear_text)) == newer.key
    assert "does not have the key 'k2'" in refusal(settings)


async def test_a_secret_key_is_no_longer_needed_once_nothing_made_with_it_counts(settings: SubscriptionSettings) -> None:
    """The keys are revoked, the secrets rotated and expired, the answers older than a day."""
    clock = MovedClock()
    async with served(settings, clock) as client:
        owner = await client.consumer()
        made = (await client.subscribe(owner)).subscription
        key = (await client.key(access_pb2.ROLE_ADMIN)).key
    clock.time_s += 60
    async with served(with_secret_key(settings, f"{SECOND_KEY},{SECRET_KEY}"), clock) as client:
        second = await client.rotate(pb.RotateSecretRequest(consumer_id=owner, subscription_id=made.id, request_id="r"))
        await client.call(client.access.RevokeKey, access_pb2.RevokeKeyRequest(id=key.id))
    clock.time_s += DAY_S
    async with served(with_secret_key(settings, SECOND_KEY), clock) as client:
        assert await client.secrets(owner, made.id) == [second.secret]


def test_a_foreign_database_is_left_alone(settings: SubscriptionSettings, tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "subscription.db")) as other:
        other.execute("CREATE TABLE songs (title TEXT)")
        other.commit()
    assert "not of this service" in refusal(settings)


def test_a_database_of_a_newer_version_is_left_alone(settings: SubscriptionSettings, tmp_path: Path) -> None:
    with open_registry(settings):
        pass
    with contextlib.closing(sqlite3.connect(tmp_path / "subscription.db")) as other:
        other.execute("UPDATE alembic_version SET version_num = '9999'")
        other.commit()
    assert "newer version" in refusal(settings)


def test_a_damaged_database_is_refused(settings: SubscriptionSettings, tmp_path: Path) -> None:
    (tmp_path / "subscription.db").write_bytes(b"not a database at all, but long enough to be taken for one" * 100)
    assert "restore the file from a backup" in refusal(settings)


def test_only_sqlite_is_taken(settings: SubscriptionSettings) -> None:
    assert "only sqlite" in refusal(settings.model_copy(update={"subscription_database_url": "postgresql://x"}))


async def test_one_process_at_a_time_has_the_registry_open(settings: SubscriptionSettings) -> None:
    async with served(settings):
        assert "in use by another process" in refusal(settings)
        with pytest.raises(StartError):
            bootstrap(settings)
    with open_registry(settings):
        pass


async def test_a_sink_exception_that_is_none_is_refused_by_its_variable(settings: SubscriptionSettings) -> None:
    with pytest.raises(StartError, match="HOOKTIDE_SINK_ALLOW"):
        async with served(settings.model_copy(update={"sink_allow": ("everything",)})):
            pass
    with pytest.raises(StartError, match="HOOKTIDE_SINK_DENY"):
        async with served(settings.model_copy(update={"sink_deny": ("http",)})):
            pass


async def test_bootstrap_makes_the_first_keys_once(settings: SubscriptionSettings) -> None:
    first = bootstrap(settings)
    assert first is not None
    assert first.admin not in repr(first)
    assert bootstrap(settings) is None
    async with served(settings) as client:
        assert (await client.authenticate(first.admin)).role == access_pb2.ROLE_ADMIN
        assert (await client.authenticate(first.emitter)).role == access_pb2.ROLE_EMITTER
        owned = await client.authenticate(first.consumer)
        assert (owned.role, owned.consumer_id) == (access_pb2.ROLE_CONSUMER, first.consumer_id)
        request = access_pb2.GetConsumerRequest(id=first.consumer_id)
        assert (await client.call(client.access.GetConsumer, request)).consumer.name == FIRST_CONSUMER


async def test_bootstrap_makes_no_keys_where_one_was_ever_made(settings: SubscriptionSettings) -> None:
    async with served(settings) as client:
        key = (await client.key(access_pb2.ROLE_EMITTER)).key
        await client.call(client.access.RevokeKey, access_pb2.RevokeKeyRequest(id=key.id))
    assert bootstrap(settings) is None


async def test_every_method_needs_the_service_token(settings: SubscriptionSettings) -> None:
    async with served(settings) as client:
        stubs = (client.subscriptions, client.catalogue, client.access, client.system)
        services = [each for file in (pb, catalogue_pb2, access_pb2, system_pb2) for each in file.DESCRIPTOR.services_by_name.values()]
        asked = {method.name: GetMessageClass(method.input_type)() for service in services for method in service.methods}
        methods = {name: method for stub in stubs for name, method in vars(stub).items()}
        assert methods.keys() == asked.keys()
        # Otherwise so many refusals would close a connection that has never shown the token.
        await client.revision()
        for name, method in methods.items():
            for authorization in ("", "Bearer hts_another-token-altogether", f"Basic {settings.token()}"):
                request = () if name == "AskRevision" else (asked[name],)
                call = method(*request, metadata=(("authorization", authorization),), timeout=10)
                failure = await refused(call.read() if name in {"WatchSubscriptions", "AskRevision"} else call)
                assert failure.reason is Reason.SERVICE_TOKEN_REQUIRED, name


async def test_health_and_readiness_tell_of_the_stop(settings: SubscriptionSettings) -> None:
    async with contextlib.AsyncExitStack() as service, asyncio.timeout(60):
        process = ServiceProcess("subscription")
        addresses = await service.enter_async_context(running(settings, process))
        async with open_channel(addresses.listen) as channel, aiohttp.ClientSession() as http:
            health = health_pb2_grpc.HealthStub(channel)
            states = health.Watch(health_pb2.HealthCheckRequest())
            assert (await states.read()).status == health_pb2.HealthCheckResponse.SERVING
            async with http.get(f"http://{addresses.admin}/readyz") as answer:
                assert answer.status == 200
            process.stop()
            async with http.get(f"http://{addresses.admin}/readyz") as answer:
                assert (answer.status, (await answer.json())["detail"]) == (503, "the service is stopping")
            stopped = asyncio.ensure_future(service.aclose())
            assert (await states.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
            states.cancel()
            await stopped


async def test_serving_lasts_until_the_stop_and_says_where(settings: SubscriptionSettings, tmp_path: Path) -> None:
    """The stop was requested before the start, so the service becomes ready and stops at once."""
    process = ServiceProcess("subscription", ready_file=tmp_path / "ready.json")
    process.stop()
    async with asyncio.timeout(60):
        await serve_until_stopped(running(settings, process), process)
    addresses = json.loads((tmp_path / "ready.json").read_text())
    assert addresses.keys() == {"listen", "admin"}
    assert not any(address.endswith(":0") for address in addresses.values())


def test_a_folder_that_cannot_be_made_is_named(settings: SubscriptionSettings, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert str(tmp_path / "file") in refusal(settings.model_copy(update={"data_dir": tmp_path / "file" / "data"}))


def test_a_lock_that_cannot_be_held_is_named(settings: SubscriptionSettings, tmp_path: Path) -> None:
    (tmp_path / "subscription.db.lock").mkdir()
    assert "subscription.db.lock" in refusal(settings)


def modes_in(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mode & 0o777 for path in folder.glob("subscription.db*")}


async def test_what_it_keeps_is_its_owner_s_alone(settings: SubscriptionSettings, tmp_path: Path) -> None:
    """The file mode does not depend on who else may read the directory."""
    async with served(settings) as client:
        await client.consumer()
        modes = modes_in(tmp_path)
    assert modes.keys() >= {"subscription.db", "subscription.db-wal"}
    assert set(modes.values()) == {0o600}
