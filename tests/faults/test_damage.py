"""Row 7 and its neighbours: files that are cut off, garbled or read-only.

A crash of the machine in the middle of an unacknowledged commit leaves a write-ahead log with a torn end. SQLite finds the tear by
its checksums and recovers all commits before it. These tests have no unacknowledged commit, so they tear an acknowledged one. Such a
tear would mean that the disk lied about a sync. Then that commit is lost, and only a second copy could prevent the loss. What must
hold: everything before the tear is there, and the log goes on.

SQLite keeps no checksums of the pages of the database itself. Damage of their structure is found at the start (up to a size at
which the check takes no time) or when a query meets it, and ends in an error that names the file. A flipped bit within a stored
value is not found; file systems with checksums, or a second copy, are for that.
"""

import contextlib
import random
import sqlite3
import struct
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from services.eventlog.sqlite import log
from services.runtime.database import migrate
from services.runtime.service_process import StartError
from services.subscription.store import sqlite
from tests.faults.faulty_system import FaultySystem, running_faulty_system
from tests.faults.serve import DIRECTORY
from tests.support.service_spawner import Spawner
from tests.support.storage_faults import small_disk
from tests.support.system.processes import QUICK, System
from tests.support.waiting import PATIENCE_S, until


def _frames(database: Path) -> tuple[int, int]:
    """Return how many frames a database's write-ahead log has, and how many of them the database already holds (SQLite's WAL-index)."""
    shared = database.with_name(f"{database.name}-shm").read_bytes()
    return struct.unpack_from("=I", shared, 16)[0], struct.unpack_from("=I", shared, 96)[0]


def _tail_is_torn(database: Path, how: str) -> None:
    """Damage the last frame of a database's write-ahead log; old frames may follow it in the file."""
    last, _ = _frames(database)
    end = 32 + last * (24 + 4096)
    with database.with_name(f"{database.name}-wal").open("r+b") as file:
        if how == "cut off":
            file.truncate(end - 3000)
        else:
            file.seek(end - 3000)
            file.write(random.Random(end).randbytes(3000))


@pytest.mark.parametrize("how", ["cut off", "garbled"])
async def test_a_torn_end_of_the_write_ahead_log_costs_no_commit_before_it(faulty_spawner: Spawner, tmp_path: Path, how: str) -> None:
    async with running_faulty_system(tmp_path / "faulty", faulty_spawner) as faulty:
        endpoint = await faulty.subscribed("torn.made")
        faulty.system.kill("delivery")
        database = faulty.system.data_dir / "ingest.db"
        receipts = [await faulty.publish("torn.made", str(number)) for number in range(20)]
        while len(set(_frames(database))) == 1:  # a checkpoint has just moved all of them
            receipts.append(await faulty.publish("torn.made", str(len(receipts))))
        faulty.system.kill("ingest")
        _tail_is_torn(database, how)
        await faulty.system.restart("ingest")
        kept = [record.event_id for record in reversed(await faulty.logged("torn.made"))]
        assert kept == [receipt.event_id for receipt in receipts[:-1]]
        again = await faulty.publish("torn.made", str(len(receipts) - 1))
        assert (again.duplicate, again.position) == (False, receipts[-1].position)
        await faulty.system.restart("delivery")
        await until(lambda: endpoint.accepted() == {*kept, again.event_id}, PATIENCE_S, "all that is kept")


async def _started_and_refused(system: System, service: str) -> str:
    """Start a service that cannot start; return its log."""
    (system.data_dir / f"{service}.log").write_text("")
    system.launch(service)
    assert await system.ended(service) == 2
    said = system.log(service)
    assert "Traceback" not in said
    return said.strip()


@pytest_asyncio.fixture
async def stopped(faulty_spawner: Spawner, tmp_path: Path) -> AsyncIterator[FaultySystem]:
    """A system whose services have stopped; each of its databases holds rows."""
    async with running_faulty_system(tmp_path / "faulty", faulty_spawner) as faulty:
        endpoint = await faulty.subscribed("damage.made")
        for number in range(100):
            await faulty.publish("damage.made", str(number))
        await until(lambda: len(endpoint.accepted()) == 100, PATIENCE_S, "the events")
        for name in ("gateway", "delivery", "ingest", "subscription"):
            assert await faulty.system.terminate(name) == 0
        assert not list(faulty.system.data_dir.glob("*-wal")), "after a stop each database is one file"
        yield faulty


SERVICES_WITH_STORES = ("subscription", "ingest", "delivery")


async def test_a_damaged_database_is_named_at_the_start_and_left_as_it_is(stopped: FaultySystem) -> None:
    """The message is a single line, and it tells the operator what to do."""
    for service in SERVICES_WITH_STORES:
        path = stopped.system.data_dir / f"{service}.db"
        sound = path.read_bytes()
        damaged = sound[: len(sound) // 8192 * 4096]
        path.write_bytes(damaged)
        said = await _started_and_refused(stopped.system, service)
        assert said.startswith(f"hooktide {service}: cannot open {path}: database disk image is malformed"), said
        assert said.endswith("; restore the file from a backup, or move it away to begin with an empty database"), said
        assert "\n" not in said
        assert path.read_bytes() == damaged


async def test_no_damage_of_a_databases_structure_is_taken_for_sound(stopped: FaultySystem, tmp_path: Path) -> None:
    """Whatever page is garbled, cut off or has a bit flipped in its head: the file is refused, or every row is still there."""
    system = stopped.system
    migrations = {"subscription": sqlite.MIGRATIONS, "ingest": log.MIGRATIONS, "delivery": log.MIGRATIONS}
    tables = {"subscription": "subscriptions", "ingest": "events", "delivery": "open"}
    path, refused = tmp_path / "copy.db", 0
    for service in SERVICES_WITH_STORES:
        sound = (system.data_dir / f"{service}.db").read_bytes()
        path.write_bytes(sound)
        before = _rows(path, tables[service])
        for damaged in _damages(sound):
            for suffix in ("-wal", "-shm"):
                path.with_name(f"copy.db{suffix}").unlink(missing_ok=True)
            path.write_bytes(damaged)
            said = _refusal(path, migrations[service])
            if said:
                refused += 1
                assert str(path) in said
                assert path.read_bytes() == damaged
            else:
                assert _rows(path, tables[service]) == before
    assert refused > 100


def _refusal(path: Path, migrations: Path) -> str:
    """Open a database as a service does; return why it is refused, or an empty text."""
    try:
        migrate(path, migrations)
    except StartError as error:
        return str(error)
    return ""


def _rows(path: Path, table: str) -> list[tuple[object, ...]]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute(f"SELECT * FROM {table} NOT INDEXED").fetchall()  # noqa: S608 - a table of ours


def _flipped(sound: bytes, page: int, at: int) -> bytes:
    """Return the database with one bit flipped at an offset of a page (0 is the first page)."""
    flipped = bytearray(sound)
    flipped[page * 4096 + at] ^= 1 << (page + at) % 8
    return bytes(flipped)


def _damages(sound: bytes) -> Iterator[bytes]:
    rng = random.Random(len(sound))
    yield rng.randbytes(4096) + sound[4096:]
    yield sound[: len(sound) // 2]
    yield sound[:5000]
    for page in range(len(sound) // 4096):
        # On the first page the database's header precedes the page's own.
        start = 100 if page == 0 else 0
        yield sound[: page * 4096 + start] + rng.randbytes(16) + sound[page * 4096 + start + 16 :]
        for _ in range(4):
            yield _flipped(sound, page, start + rng.randrange(8))


@contextlib.contextmanager
def read_only(at: Path) -> Iterator[None]:
    """Make a mounted directory read-only, also for root."""
    subprocess.run(["/bin/mount", "-o", "remount,ro", str(at)], check=True)  # noqa: S603 - a fixed command
    try:
        yield
    finally:
        subprocess.run(["/bin/mount", "-o", "remount,rw", str(at)], check=True)  # noqa: S603 - a fixed command


async def test_a_directory_that_may_not_be_written_is_named_at_the_start(spawner: Spawner, tmp_path: Path) -> None:
    (tmp_path / "told").mkdir()
    system = System(tmp_path / "data", dict(QUICK), module="tests.faults.serve", extra={DIRECTORY: str(tmp_path / "told")})
    system.spawn = spawner.spawn
    with small_disk(tmp_path / "disk", 8 << 20) as disk:
        try:
            system.settings = {
                **QUICK,
                **{f"HOOKTIDE_{name.upper()}_DATABASE_URL": f"sqlite:///{disk}/{name}.db" for name in SERVICES_WITH_STORES},
            }
            await system.start(("subscription",))
            await system.terminate("subscription")
            with read_only(disk):
                for service in SERVICES_WITH_STORES:
                    said = await _started_and_refused(system, service)
                    assert str(disk) in said, said
                    assert "can be written" in said, said
            await system.start(SERVICES_WITH_STORES)
        finally:
            await system.close()
