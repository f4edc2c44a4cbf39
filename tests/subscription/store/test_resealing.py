"""Resealing: when a new secret key replaces the old one, everything is sealed anew, and then the old key may go."""

import asyncio
import base64
import contextlib
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from google.protobuf.duration_pb2 import Duration
from hooktide.subscription.v1 import access_pb2
from hooktide.subscription.v1 import subscription_pb2 as pb

from services.runtime.clock import SystemClock, unix_ms
from services.runtime.configuration.settings import SubscriptionSettings
from services.runtime.configuration.settings_reader import read_settings
from services.runtime.service_process import StartError
from services.subscription.model import IdempotentCall
from services.subscription.store import resealing as store_resealing
from services.subscription.store.idempotency import answer_once
from services.subscription.store.startup_checks import open_registry
from services.subscription.store.transaction import Writing
from tests.subscription.store.test_damaged_secrets import damage
from tests.support.clock import MovedClock
from tests.support.commands import clean_environ, hooktide
from tests.support.system.in_process import reloads
from tests.support.system.registry import SECRET_KEY, SINK, Client, refused, served, until_checkpoint

K1 = SECRET_KEY
K2 = "k2:" + base64.b64encode(bytes(32)).decode()
K3 = "k3:" + base64.b64encode(bytes(range(1, 33))).decode()
OTHER_K2 = "k2:" + base64.b64encode(bytes(range(2, 34))).decode()
WITHIN_S = 60.0


@dataclass
class Stored:
    """What the test stored in a registry, to compare with later answers."""

    owner: str
    ids: list[str]
    secrets: dict[str, Sequence[str]]
    request: pb.CreateSubscriptionRequest
    answer: pb.CreateSubscriptionResponse
    keys: list[str]


def having(settings: SubscriptionSettings, *keys: str) -> SubscriptionSettings:
    return settings.model_copy(update={"secret_key": ",".join(keys)})


async def stored(client: Client, count: int = 3) -> Stored:
    """Store something of every kind that a secret key seals or hashes."""
    owner = await client.consumer()
    credential = pb.SinkCredential(access_token=pb.AccessTokenCredential(token="t0ken"))
    schemes = [pb.SIGNATURE_SCHEME_V1, pb.SIGNATURE_SCHEME_V1A]
    wanted = pb.Subscription(sink=SINK, sink_credential=credential, protocol_settings=pb.ProtocolSettings(signatures=schemes))
    request = pb.CreateSubscriptionRequest(consumer_id=owner, subscription=wanted, request_id="once")
    answer = await client.call(client.subscriptions.CreateSubscription, request)
    others = [await client.call(client.subscriptions.CreateSubscription, again(request)) for _ in range(count - 1)]
    ids = [answer.subscription.id, *(other.subscription.id for other in others)]
    keys = [(await client.key(role)).clear_text for role in (access_pb2.ROLE_ADMIN, access_pb2.ROLE_EMITTER)]
    return Stored(owner, ids, {name: await client.secrets(owner, name) for name in ids}, request, answer, keys)


def again(request: pb.CreateSubscriptionRequest) -> pb.CreateSubscriptionRequest:
    return pb.CreateSubscriptionRequest(consumer_id=request.consumer_id, subscription=request.subscription)


async def unchanged(client: Client, before: Stored) -> None:
    """Assert that everything reads as before."""
    assert {name: await client.secrets(before.owner, name) for name in before.ids} == before.secrets
    async with client.watch() as stream:
        items, _ = await until_checkpoint(stream)
    assert {item.put.subscription.id for item in items} >= set(before.ids)
    assert {item.put.sink_credential.access_token.token for item in items} == {"t0ken"}
    assert await client.call(client.subscriptions.CreateSubscription, before.request) == before.answer
    assert [(await client.authenticate(key)).role for key in before.keys] == [access_pb2.ROLE_ADMIN, access_pb2.ROLE_EMITTER]


async def state(client: Client) -> access_pb2.GetResealingResponse:
    return await client.call(client.access.GetResealing, access_pb2.GetResealingRequest())


async def until_resealed(client: Client) -> access_pb2.GetResealingResponse:
    async with asyncio.timeout(WITHIN_S):
        while (now := await state(client)).older:  # noqa: ASYNC110 - only asking tells
            await asyncio.sleep(0.01)
    return now


def refusal(settings: SubscriptionSettings) -> str:
    with pytest.raises(StartError) as caught, open_registry(settings):
        pass
    return str(caught.value)


def many_answers(settings: SubscriptionSettings) -> None:
    """Store more answers than two transactions reseal, in one transaction, which is quicker than as many calls."""
    with open_registry(settings) as registry, registry.database.writer.begin() as connection:
        writing = Writing(connection, registry.vault, unix_ms(SystemClock()), registry.changes_kept)
        for number in range(2 * store_resealing.BATCH + 5):
            answer_once(writing, IdempotentCall("scope", "Method", f"{number}", bytes(32)), lambda: b"answer")


async def test_all_is_readable_after_the_old_secret_key_was_taken_away(settings: SubscriptionSettings) -> None:
    """The data are signing secrets and keys, credentials, kept answers and API keys, more than one transaction reseals."""
    async with served(having(settings, K1)) as client:
        before = await stored(client)
    many_answers(having(settings, K1))
    async with served(having(settings, K2, K1)) as client:
        after = await until_resealed(client)
        assert (after.newest_secret_key_id, list(after.unneeded_secret_key_ids)) == ("k2", ["k1"])
        await unchanged(client, before)
    async with served(having(settings, K2)) as client:
        await unchanged(client, before)
        newer = await client.key(access_pb2.ROLE_EMITTER)
    async with served(having(settings, K3, K2)) as client:
        await until_resealed(client)
    async with served(having(settings, K3)) as client:
        await unchanged(client, before)
        assert (await client.authenticate(newer.clear_text)) == newer.key


async def test_resealing_that_was_broken_off_goes_on_at_the_next_start(settings: SubscriptionSettings) -> None:
    async with served(having(settings, K1)) as client:
        before = await stored(client)
    with open_registry(having(settings, K2, K1)) as registry, registry.database.writer.begin() as connection:
        writing = Writing(connection, registry.vault, unix_ms(SystemClock()), registry.changes_kept)
        step = store_resealing.reseal_some(writing, store_resealing.FIRST)
        assert (step.resealed, step.then) == (2 * len(before.ids), (1, ()))
    assert "does not have the key 'k1'" in refusal(having(settings, K2))
    async with served(having(settings, K2, K1)) as client:
        await until_resealed(client)
    async with served(having(settings, K2)) as client:
        await unchanged(client, before)


@pytest.mark.parametrize("table", ["signing_secrets", "credential_secrets"])
async def test_a_damaged_value_does_not_hold_the_old_key_back(settings: SubscriptionSettings, table: str) -> None:
    """The value stays damaged: its subscription waits as before, and the others are readable."""
    async with served(having(settings, K1)) as client:
        before = await stored(client)
    hurt, *sound = before.ids
    damage(settings.data_dir / "subscription.db", table, hurt)
    async with served(having(settings, K2, K1)) as client:
        await until_resealed(client)
    async with served(having(settings, K2)) as client, client.watch() as stream:
        items, _ = await until_checkpoint(stream)
        states = {item.put.subscription.id: item.put.subscription.state for item in items}
        assert states == {hurt: pb.SUBSCRIPTION_STATE_PAUSED, **dict.fromkeys(sound, pb.SUBSCRIPTION_STATE_ACTIVE)}


async def test_what_has_expired_is_removed_and_needs_no_key(settings: SubscriptionSettings) -> None:
    clock = MovedClock()
    async with served(having(settings, K1), clock) as client:
        before = await stored(client, count=1)
        await client.rotate(pb.RotateSecretRequest(consumer_id=before.owner, subscription_id=before.ids[0], overlap=Duration(seconds=60)))
    clock.time_s += 25 * 3600
    async with served(having(settings, K2, K1), clock) as client:
        await until_resealed(client)
    with contextlib.closing(sqlite3.connect(settings.data_dir / "subscription.db")) as database:
        assert database.execute("SELECT count(*) FROM signing_secrets WHERE expire_ms IS NOT NULL").fetchone() == (0,)
        assert database.execute("SELECT count(*) FROM answers").fetchone() == (0,)


@dataclass
class Running:
    """A registry that reads its secret keys again from a file at each reload."""

    client: Client
    file: Path

    async def reload(self, *keys: str) -> bool:
        """Write the file and reload; return whether the registry accepted it."""
        self.file.write_text("\n".join(keys))
        before = reloads("applied"), reloads("refused")
        self.client.process.reload_asked.set()
        async with asyncio.timeout(WITHIN_S):
            while (now := (reloads("applied"), reloads("refused"))) == before:  # noqa: ASYNC110 - a metric tells of nothing by itself
                await asyncio.sleep(0.01)
        return now[0] > before[0]


@pytest.fixture
def from_file(settings: SubscriptionSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SubscriptionSettings:
    """Settings from the process's own environment, with the secret keys in a file."""
    file = tmp_path / "secret.key"
    file.write_text(K1)
    listen = {f"SUBSCRIPTION_{which}LISTEN": "127.0.0.1:0" for which in ("", "ADMIN_")}
    values = {"DATA_DIR": settings.data_dir, "SERVICE_TOKEN": settings.token(), "SECRET_KEY_FILE": file} | listen
    for name, value in values.items():
        monkeypatch.setenv(f"HOOKTIDE_{name}", str(value))
    return read_settings(SubscriptionSettings)


async def test_a_running_registry_takes_a_new_secret_key_and_reseals(from_file: SubscriptionSettings, tmp_path: Path) -> None:
    async with served(from_file) as client:
        running = Running(client, tmp_path / "secret.key")
        before = await stored(client)
        assert await running.reload(K2, K1)
        assert list((await until_resealed(client)).unneeded_secret_key_ids) == ["k1"]
        newer = await client.key(access_pb2.ROLE_EMITTER)
        assert await running.reload(K2)
        await unchanged(client, before)
        assert (await client.authenticate(newer.clear_text)) == newer.key
        assert list((await state(client)).unneeded_secret_key_ids) == []
    async with served(from_file) as client:
        await unchanged(client, before)


async def test_secret_keys_that_would_lose_something_are_refused_and_the_old_ones_stay(
    from_file: SubscriptionSettings, tmp_path: Path
) -> None:
    async with served(from_file) as client:
        running = Running(client, tmp_path / "secret.key")
        before = await stored(client)
        assert not await running.reload(K2)
        assert not await running.reload("k2:nonsense", K1)
        assert not await running.reload()
        await unchanged(client, before)
        assert await running.reload(K2, K1)
        await until_resealed(client)
        assert not await running.reload(OTHER_K2, K1)
        assert not await running.reload(K3)
        await unchanged(client, before)


async def test_the_command_says_how_far_it_is(from_file: SubscriptionSettings, tmp_path: Path) -> None:
    async with served(from_file) as client:
        before = await stored(client)
        environ = clean_environ(HOOKTIDE_SUBSCRIPTION_TARGET=client.listen, HOOKTIDE_SERVICE_TOKEN=client.token)
        alone = await hooktide("secrets", "reseal", environ=environ)
        assert (alone.code, alone.out) == (0, "All stored secrets are encrypted with the key k1.\n")
        assert await Running(client, tmp_path / "secret.key").reload(K2, K1)
        ended = await hooktide("secrets", "reseal", "--wait", environ=environ)
        assert (ended.code, ended.out) == (
            0,
            "All stored secrets are encrypted with the key k2.\nYou can remove these keys from HOOKTIDE_SECRET_KEY: k1.\n",
        )
        await unchanged(client, before)
        wrong = await hooktide("secrets", "reseal", environ=environ | {"HOOKTIDE_SERVICE_TOKEN": "hts_another-token-of-some-length"})
        assert (wrong.code, "Traceback" in wrong.err) == (1, False)


async def test_only_services_ask_what_the_secret_keys_are_needed_for(settings: SubscriptionSettings) -> None:
    async with served(settings) as client:
        call = partial(client.access.GetResealing, access_pb2.GetResealingRequest(), timeout=20)
        assert (await refused(call())).reason.name == "SERVICE_TOKEN_REQUIRED"
