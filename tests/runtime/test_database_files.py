"""Database files: each way in which an open database may no longer be at its path."""

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from services.runtime.database import connect, sole_owner
from services.runtime.database_files import DatabaseFiles, FileGoneError
from services.runtime.service_process import StartError


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "home" / "a.db"
    path.parent.mkdir()
    with contextlib.closing(connect(path)) as connection:
        connection.execute("CREATE TABLE rows (number INTEGER)")
        yield path


def _wal(path: Path) -> Path:
    return path.with_name("a.db-wal")


def _replace(path: Path) -> None:
    shutil.copy(path, path.with_name("copy"))
    path.with_name("copy").replace(path)


def _copy_directory(path: Path) -> None:
    path.parent.rename(path.parents[1] / "old")
    shutil.copytree(path.parents[1] / "old", path.parent)


WAYS: dict[str, Callable[[Path], object]] = {
    "removed": os.unlink,
    "replaced by a copy": _replace,
    "moved": lambda path: path.rename(path.with_name("b.db")),
    "directory moved": lambda path: path.parent.rename(path.parents[1] / "away"),
    "directory replaced by a copy": _copy_directory,
    "log removed": lambda path: _wal(path).unlink(),
    "log replaced": lambda path: _replace(_wal(path)),
}


@pytest.mark.parametrize("how", WAYS)
def test_files_that_are_gone_are_noticed(database: Path, how: str) -> None:
    files = DatabaseFiles(database)
    files.check()
    WAYS[how](database)
    with pytest.raises(FileGoneError, match=str(database)):
        files.check()


def test_commits_checkpoints_and_readers_change_nothing(database: Path) -> None:
    """Another program that opens and closes the database changes nothing either."""
    files = DatabaseFiles(database)
    with contextlib.closing(connect(database)) as writing:
        writing.execute("INSERT INTO rows VALUES (1)")
        writing.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    with contextlib.closing(sqlite3.connect(database)) as other:
        assert other.execute("SELECT count(*) FROM rows").fetchone() == (1,)
    files.check()


def test_a_database_that_was_removed_is_not_made_anew_by_itself(database: Path) -> None:
    """If the file is put back, it is opened; if the lock file is removed too, a new database is made."""
    with sole_owner(database):
        files, content = DatabaseFiles(database), database.read_bytes()
        database.unlink()
        with pytest.raises(FileGoneError):
            files.check()
    for _ in range(2):
        with pytest.raises(StartError, match=r"put the file back, or remove .*a\.db\.lock to begin"), sole_owner(database):
            pass
    database.write_bytes(content)
    with sole_owner(database):
        database.unlink()
    # The file was removed while no service had it open, so that was intended.
    with sole_owner(database):
        pass
