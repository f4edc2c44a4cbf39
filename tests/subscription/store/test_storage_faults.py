import asyncio
import contextlib
import sqlite3
from functools import partial
from pathlib import Path
from typing import NoReturn

import aiohttp
import pytest
import sqlalchemy as sa
from hooktide.subscription.v1 import subscription_pb2 as pb

from services.runtime.configuration.settings import SubscriptionSettings
from services.runtime.database_files import FileGoneError
from services.runtime.errors import Failure, Reason
from services.runtime.service_process import ServiceProcess
from services.subscription.model import Consumer
from services.subscription.store import consumers, keys
from services.subscription.store.startup_checks import open_registry
from services.subscription.store.store import WAITING_MAX, running_store
from services.subscription.store.transaction import Writing
from tests.support.storage_faults import files_bounded, take_away
from tests.support.system.registry import Client, refused


async def test_a_full_disk_refuses_and_heals_by_itself(settings: SubscriptionSettings) -> None:
    """Refused changes are undone, earlier data stays readable, and the service goes on."""
    process = ServiceProcess("subscription")

    def limit_pages(writing: Writing, pages: int) -> None:
        writing.connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")

    with open_registry(settings) as registry:
        async with running_store(registry, process) as store:
            await store.write(partial(limit_pages, pages=1))
            made: list[Consumer] = []

            async def fill() -> NoReturn:
                while True:
                    made.append(await store.write(partial(consumers.create, name="n" * 200)))

            with pytest.raises(Failure) as caught:
                await fill()
            assert caught.value.reason is Reason.STORAGE_FULL
            assert caught.value.retry_after_s is not None
            found, _ = await store.read(partial(consumers.page, after_id="", size=20_000))
            assert found == made

            await store.write(partial(limit_pages, pages=1 << 30))
            made.append(await store.write(partial(consumers.create, name="there is room")))
            found, _ = await store.read(partial(consumers.page, after_id="", size=20_000))
            assert found == made
    assert not process.stopping.is_set()


async def test_an_input_output_error_ends_the_process(client: Client, tmp_path: Path) -> None:
    """Nothing is acknowledged after it, and the readiness endpoint says why."""
    await client.consumer()
    with files_bounded((tmp_path / "subscription.db-wal").stat().st_size):
        failure = await refused(client.consumer())
    assert failure.reason is Reason.UNAVAILABLE
    await client.process.stopping.wait()
    with pytest.raises(sa.exc.OperationalError):
        client.process.raise_failure()
    assert (await refused(client.consumer())).reason is Reason.UNAVAILABLE
    async with aiohttp.ClientSession() as http, http.get(f"http://{client.admin}/readyz") as answer:
        assert (answer.status, (await answer.json())["detail"]) == (503, "the database failed")


@pytest.mark.parametrize("how", ["removed", "replaced"])
async def test_no_change_is_acknowledged_into_a_file_that_is_gone(client: Client, tmp_path: Path, how: str) -> None:
    """Nothing is read from another file either: the service stops, and names the file."""
    owner = await client.consumer()
    database = tmp_path / "subscription.db"
    take_away(database, how)
    assert (await refused(client.subscribe(owner))).reason is Reason.UNAVAILABLE
    request = pb.ListSubscriptionsRequest(consumer_id=owner)
    assert (await refused(client.call(client.subscriptions.ListSubscriptions, request))).reason is Reason.UNAVAILABLE
    await client.process.stopping.wait()
    with pytest.raises(FileGoneError, match=f"{database} was removed, replaced or moved"):
        client.process.raise_failure()
    assert database.exists() == (how == "replaced")


@pytest.fixture
def brief_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Databases that are opened from here on wait half a second for a lock."""
    monkeypatch.setattr("services.runtime.database.BUSY_TIMEOUT_MS", 500)


@pytest.mark.usefixtures("brief_wait")
async def test_a_database_locked_for_too_long_is_unavailable_for_now(client: Client, tmp_path: Path) -> None:
    owner = await client.consumer()
    with contextlib.closing(sqlite3.connect(tmp_path / "subscription.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        failure = await refused(client.subscribe(owner))
        assert failure.reason is Reason.UNAVAILABLE
        assert failure.retry_after_s is not None
        assert await client.revision() == 1
        other.execute("ROLLBACK")
    assert (await client.subscribe(owner)).subscription.revision == 2
    assert not client.process.stopping.is_set()


async def test_a_fault_of_our_own_is_undone_and_not_explained(client: Client, tmp_path: Path) -> None:
    owner = await client.consumer()
    with contextlib.closing(sqlite3.connect(tmp_path / "subscription.db")) as other:
        other.execute("CREATE TRIGGER t BEFORE INSERT ON signing_secrets BEGIN SELECT RAISE(ABORT, 'a detail of ours'); END")
        other.commit()
        failure = await refused(client.subscribe(owner))
        assert failure.reason is Reason.INTERNAL
        assert "detail of ours" not in failure.message
        assert await client.revision() == 1
        other.execute("DROP TRIGGER t")
        other.commit()
    assert (await client.subscribe(owner)).subscription.revision == 2
    request = pb.ListSubscriptionsRequest(consumer_id=owner)
    assert len((await client.call(client.subscriptions.ListSubscriptions, request)).subscriptions) == 1


async def test_more_work_than_is_taken_at_once_is_refused(settings: SubscriptionSettings) -> None:
    with open_registry(settings) as registry:
        async with running_store(registry, ServiceProcess("subscription")) as store:
            calls = [asyncio.ensure_future(store.read(keys.was_any_created)) for _ in range(WAITING_MAX + 1)]
            answers = await asyncio.gather(*calls, return_exceptions=True)
    assert answers[:-1] == [False] * WAITING_MAX
    assert isinstance(answers[-1], Failure)
    assert answers[-1].reason is Reason.OVERLOADED


async def test_a_snapshot_shows_one_moment_however_long_it_takes(settings: SubscriptionSettings) -> None:
    with open_registry(settings) as registry:
        async with running_store(registry, ServiceProcess("subscription")) as store:
            read = partial(consumers.page, after_id="", size=10)
            await store.write(partial(consumers.create, name="before"))
            async with store.snapshot() as snapshot:
                before = await snapshot.read(read)
                await store.write(partial(consumers.create, name="after"))
                assert await snapshot.read(read) == before
                snapshot.end()
                with pytest.raises(Failure, match="too slowly"):
                    await snapshot.read(read)
            assert len((await store.read(read))[0]) == 2
