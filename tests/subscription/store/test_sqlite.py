import contextlib
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from services.subscription.store.sqlite import ErrorKind, kind_of


def error_of(connection: sqlite3.Connection, statement: str) -> sqlite3.Error:
    with contextlib.closing(connection), pytest.raises(sqlite3.Error) as caught:
        connection.execute(statement)
    return caught.value


def made(path: Path) -> Path:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (x)")
    return path


def full(path: Path) -> sqlite3.Error:
    connection = sqlite3.connect(made(path), isolation_level=None)
    connection.execute("PRAGMA max_page_count = 2")
    return error_of(connection, "INSERT INTO t VALUES (zeroblob(100000))")


def locked(path: Path) -> sqlite3.Error:
    with contextlib.closing(sqlite3.connect(made(path), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        return error_of(sqlite3.connect(path, isolation_level=None, timeout=0), "BEGIN IMMEDIATE")


def read_only(path: Path) -> sqlite3.Error:
    return error_of(sqlite3.connect(f"{made(path).as_uri()}?mode=ro", uri=True), "INSERT INTO t VALUES (1)")


def not_a_database(path: Path) -> sqlite3.Error:
    path.write_bytes(b"no database" * 1000)
    return error_of(sqlite3.connect(path), "SELECT * FROM t")


def damaged(path: Path) -> sqlite3.Error:
    content = bytearray(made(path).read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    path.write_bytes(content)
    return error_of(sqlite3.connect(path), "SELECT * FROM t")


def a_bug(path: Path) -> sqlite3.Error:
    return error_of(sqlite3.connect(made(path)), "SELECT * FROM missing")


@pytest.mark.parametrize(
    ("fail", "kind"),
    [
        (full, ErrorKind.FULL),
        (locked, ErrorKind.LOCKED),
        (read_only, ErrorKind.BROKEN),
        (not_a_database, ErrorKind.BROKEN),
        (damaged, ErrorKind.BROKEN),
        (a_bug, ErrorKind.OTHER),
    ],
)
def test_an_error_of_sqlite_is_told_apart_by_what_it_means(tmp_path: Path, fail: Callable[[Path], sqlite3.Error], kind: ErrorKind) -> None:
    error = fail(tmp_path / "x.db")
    assert kind_of(sa.exc.OperationalError("", None, error)) is kind


def test_an_extended_error_code_counts_as_its_primary_one() -> None:
    error = sqlite3.OperationalError()
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
    assert kind_of(sa.exc.OperationalError("", None, error)) is ErrorKind.BROKEN
