"""Service databases: reads a service's database beside the running service, and its size on disk."""

import contextlib
import sqlite3
from pathlib import Path


def rows(path: Path, query: str) -> list[tuple[object, ...]]:
    """Return the rows of a query."""
    with contextlib.closing(sqlite3.connect(path, timeout=30)) as connection:
        return connection.execute(query).fetchall()


def number(path: Path, query: str) -> int:
    """Return the single number of a query."""
    ((value,),) = rows(path, query)
    assert isinstance(value, int)
    return value


def pages_in_use(path: Path) -> int:
    """Return the size of the pages in use, in bytes."""
    pages, free, size = (number(path, f"PRAGMA {name}") for name in ("page_count", "freelist_count", "page_size"))
    return (pages - free) * size


def size_on_disk(path: Path) -> int:
    """Return the size of a database in bytes, its write-ahead log included."""
    return sum(file.stat().st_size for file in (path, path.with_name(f"{path.name}-wal")) if file.exists())
