"""Database layout: data of another layout is refused, and nothing in its directory changes."""

import contextlib
import functools
import os
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from services.delivery.ledger.sqlite.ledger import open_ledger
from services.eventlog.sqlite.log import open_sqlite_log
from services.runtime.clock import SystemClock
from services.runtime.configuration.settings import SubscriptionSettings
from services.runtime.configuration.settings_reader import read_settings
from services.runtime.database import connect
from services.runtime.database_layout import LAYOUT, refuse_other_layout
from services.runtime.service_process import StartError
from services.subscription.store.sqlite import open_database
from tests.support.layout_1 import SERVICES, directory_state, make_layout_1, write_database
from tests.support.system.registry import SECRET_KEY

Open = Callable[[Path], AbstractAsyncContextManager[object]]
STATES = ("closed", "killed", "checkpointed")
OURS = f"""
CREATE TABLE alembic_version (version_num TEXT); INSERT INTO alembic_version VALUES ('x0001');
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID; INSERT INTO meta VALUES ('layout', '{LAYOUT}');
CREATE TABLE rows (number INTEGER PRIMARY KEY);
"""  # noqa: S608 - a number


@contextlib.asynccontextmanager
async def open_registry(path: Path) -> AsyncIterator[None]:
    """Open a registry as the subscription service does."""
    environ = {"HOOKTIDE_DATA_DIR": str(path.parent), "HOOKTIDE_SECRET_KEY": SECRET_KEY, "HOOKTIDE_SERVICE_TOKEN": "t" * 32}
    with open_database(read_settings(SubscriptionSettings, environ)):
        yield


def open_log(path: Path) -> AbstractAsyncContextManager[object]:
    """Open an event log as the ingest service does."""
    return open_sqlite_log(path, SystemClock(), bytes_max=1 << 30, retention_s=3600.0, failed=lambda _error: None)


OPEN: dict[str, Open] = {"subscription": open_registry, "ingest": open_log, "delivery": open_ledger}


def forget_index(path: Path) -> None:
    """Remove the index of the write-ahead log, as a copy of the other two files has none."""
    path.with_name(f"{path.name}-shm").unlink()


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("service", SERVICES)
async def test_a_service_refuses_data_of_the_first_layout(tmp_path: Path, service: str, state: str) -> None:
    """One line names the file, the layout and the cure. No byte and no name in the directory changes."""
    make_layout_1(tmp_path, state=state)
    before, path = directory_state(tmp_path), tmp_path / f"{service}.db"
    with pytest.raises(StartError) as refused:
        async with OPEN[service](path):
            pass
    message = str(refused.value)
    assert "\n" not in message
    for part in (str(path), "layout 1", "HOOKTIDE_DATA_DIR", f"move {tmp_path} away", "an older version"):
        assert part in message
    assert directory_state(tmp_path) == before
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM alembic_version").fetchone() == (1,), "the version that wrote it can go on"


@pytest.mark.parametrize("service", SERVICES)
async def test_a_service_opens_what_it_has_made(tmp_path: Path, service: str) -> None:
    for _ in range(2):
        async with OPEN[service](tmp_path / f"{service}.db"):
            refuse_other_layout(tmp_path / f"{service}.db")
    with contextlib.closing(sqlite3.connect(tmp_path / f"{service}.db")) as connection:
        assert connection.execute("SELECT value FROM meta WHERE name = 'layout'").fetchone() == (str(LAYOUT),)


@pytest.mark.parametrize("change", [lambda _path: None, forget_index], ids=["with its index", "copied without its index"])
@pytest.mark.parametrize("state", STATES[1:])
def test_a_killed_process_s_data_is_judged_by_its_write_ahead_log_too(tmp_path: Path, state: str, change: Callable[[Path], None]) -> None:
    """The layout may stand in the log alone. Neither verdict changes a file."""
    ours, old, newer = (tmp_path / name for name in ("ours.db", "ingest.db", "newer.db"))
    write_database(ours, OURS, state)
    write_database(newer, OURS.replace(f"'{LAYOUT}'", f"'{LAYOUT + 1}'"), state)
    make_layout_1(tmp_path, state=state, services=("ingest",))
    for path in (ours, old, newer):
        change(path)
    before = directory_state(tmp_path)
    refuse_other_layout(ours)
    with pytest.raises(StartError, match="layout 1, and"):
        refuse_other_layout(old)
    with pytest.raises(StartError, match=rf"layout {LAYOUT + 1}, and.*a newer version"):
        refuse_other_layout(newer)
    assert directory_state(tmp_path) == before


def cut(log: Path, size_bytes: int) -> None:
    """Cut a write-ahead log, as if its process had been killed after so many bytes of it."""
    log.write_bytes(log.read_bytes()[:size_bytes])


def overwrite(log: Path, offset: int) -> None:
    """Overwrite four bytes of a write-ahead log."""
    whole = log.read_bytes()
    log.write_bytes(whole[:offset] + b"\x00\x00\x00\x03" + whole[offset + 4 :])


@pytest.mark.parametrize(
    "spoil",
    [
        *(functools.partial(cut, size_bytes=size_bytes) for size_bytes in (4, 31, 32, 33, 56, 600)),
        *(functools.partial(overwrite, offset=offset) for offset in (0, 8, 16, 24)),
    ],
    ids=["4 bytes", "31 bytes", "header", "33 bytes", "frame's header", "600 bytes", "bad magic", "bad page size", "bad salt", "bad sum"],
)
@pytest.mark.timeout(8)
def test_a_process_that_was_killed_while_it_began_its_write_ahead_log_starts_again(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    """SQLite tries in vain, for over ten seconds, to read the index of a log that has no valid header or nothing behind it."""
    path = tmp_path / "a.db"
    write_database(path, OURS, "checkpointed")
    spoil(path.with_name("a.db-wal"))
    before = directory_state(tmp_path)
    refuse_other_layout(path)
    assert directory_state(tmp_path) == before
    with contextlib.closing(connect(path)) as connection:
        assert connection.execute("SELECT value FROM meta").fetchall() == [(str(LAYOUT),)]


@pytest.mark.parametrize(
    "make",
    [
        lambda _path: None,
        lambda path: path.touch(),
        lambda path: path.write_bytes(b"not a database" * 1000),
        lambda path: write_database(path, "CREATE TABLE something (id INTEGER);", "closed"),
        lambda path: write_database(path, "CREATE TABLE alembic_version (version_num TEXT);", "closed"),
    ],
    ids=["missing", "empty", "no database", "of another program", "begun"],
)
def test_files_without_a_layout_are_left_to_their_service(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "a.db")
    before = directory_state(tmp_path)
    refuse_other_layout(tmp_path / "a.db")
    assert directory_state(tmp_path) == before


@pytest.mark.parametrize("command", [("up", "--free-ports"), ("serve", "delivery")], ids=["up", "serve"])
def test_the_command_line_refuses_it_in_one_line(tmp_path: Path, command: tuple[str, ...]) -> None:
    """`hooktide up` looks at all databases before it makes anything in the data directory."""
    data = tmp_path / "data"
    make_layout_1(data, state="killed", services=("delivery",))
    before = directory_state(data)
    environ = {**os.environ, "HOOKTIDE_DATA_DIR": str(data), "HOOKTIDE_SERVICE_TOKEN": "t" * 32, "HOOKTIDE_LOG_LEVEL": "error"}
    ended = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-m", "services", *command],
        env=environ,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    (line,) = (line for line in ended.stderr.splitlines() if "layout" in line)
    assert f"{data / 'delivery.db'} has data of layout 1" in line
    assert "Traceback" not in ended.stderr
    assert directory_state(data) == before
