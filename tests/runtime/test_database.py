"""Database: under steady writing the write-ahead log stays bounded, whoever reads meanwhile, and no row is lost."""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.runtime.database import WalCheckpoints, connect, database_path, explained
from services.runtime.service_process import StartError

BOUND = 1024 * 1024
ROW = b"x" * 20_000


class Writing:
    """A database with steady writing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.connection = connect(path)
        self.connection.execute("CREATE TABLE rows (number INTEGER PRIMARY KEY, content BLOB)")
        self.checkpoints = WalCheckpoints(path, self.connection)
        self.checkpoints.start()
        self.rows = 0

    @property
    def log_bytes(self) -> int:
        """The length of the write-ahead log's file."""
        return self.path.with_name(f"{self.path.name}-wal").stat().st_size

    def write(self, count: int) -> None:
        """Commit `count` rows, each in its own transaction."""
        for _ in range(count):
            self.rows += 1
            self.connection.execute("INSERT INTO rows VALUES (?, ?)", (self.rows, ROW))
            self.checkpoints.after_commit()

    def written(self) -> int:
        """Return how many rows another connection sees."""
        with contextlib.closing(connect(self.path, read_only=True)) as reading:
            (count,) = reading.execute("SELECT count(*) FROM rows").fetchone()
        return int(count)


@pytest.fixture
def writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Writing]:
    monkeypatch.setattr(WalCheckpoints, "_RESTART_BYTES", BOUND)
    made = Writing(tmp_path / "a.db")
    yield made
    made.checkpoints.close()
    made.connection.close()


def test_a_sqlite_without_strict_tables_is_refused_with_the_version_that_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The schemas use STRICT tables, which SQLite has since 3.37.0."""
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 36, 0))
    with pytest.raises(StartError, match=r"too old; use a Python with SQLite 3\.37 or newer"):
        connect(tmp_path / "a.db")


def test_the_log_stays_bounded_and_its_file_is_written_over(writing: Writing) -> None:
    """The log restarts when it is too long; the checkpoint thread finds that out a little later."""
    writing.write(200)
    longest = writing.log_bytes
    for _ in range(10):
        writing.write(200)
        assert writing.log_bytes >= longest
        longest = max(longest, writing.log_bytes)
    assert writing.rows * len(ROW) > 40 * BOUND
    assert longest < 20 * BOUND
    assert writing.written() == writing.rows


def test_a_reader_in_the_way_stops_no_commit(writing: Writing) -> None:
    """A backup is such a reader: the log grows as long as it reads, and restarts after it."""
    with contextlib.closing(sqlite3.connect(writing.path)) as reading:
        reading.execute("BEGIN")
        (seen,) = reading.execute("SELECT count(*) FROM rows").fetchone()
        writing.write(300)
        assert reading.execute("SELECT count(*) FROM rows").fetchone() == (seen,)
    grown = writing.log_bytes
    assert grown > 300 * len(ROW)
    writing.write(1000)
    assert writing.log_bytes < grown + 20 * BOUND
    assert writing.written() == 1300


@pytest.mark.parametrize(
    "url",
    ["postgresql://me:hunter2@db/x", "sqlite:///me:hunter2@db/x", "sqlite:////tmp/x.db?password=hunter2", "hunter2", "sqlite://hunter2@/x"],
)
def test_a_database_url_that_is_none_of_ours_is_refused_without_its_password(tmp_path: Path, url: str) -> None:
    with pytest.raises(StartError) as caught:
        database_path(url, tmp_path, "ingest")
    assert str(caught.value).startswith("HOOKTIDE_INGEST_DATABASE_URL: ")
    assert "hunter2" not in str(caught.value)


def test_a_full_disk_is_told_apart_from_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    database = tmp_path / "small.db"
    expected = f"^the disk is full, and {database} cannot be written; make room, and start again$"
    with contextlib.closing(connect(database)) as connection:
        connection.execute("PRAGMA max_page_count = 1")
        with pytest.raises(StartError, match=expected), explained(database):
            connection.executescript("CREATE TABLE t (x); CREATE TABLE u (x)")
