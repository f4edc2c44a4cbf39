"""Files: what stands in a service's database, read beside the running service, and how large it is on the disk."""

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path


def rows(path: Path, query: str) -> list[tuple[object, ...]]:
    """Return what a query finds in a database."""
    with contextlib.closing(sqlite3.connect(path, timeout=30)) as connection:
        return connection.execute(query).fetchall()


def number(path: Path, query: str) -> int:
    """Return the one number that a query finds."""
    ((value,),) = rows(path, query)
    assert isinstance(value, int)
    return value


def pages_in_use(path: Path) -> int:
    """Return how many bytes the pages take that hold something."""
    pages, free, size = (number(path, f"PRAGMA {name}") for name in ("page_count", "freelist_count", "page_size"))
    return (pages - free) * size


def size_on_disk(path: Path) -> int:
    """Return how many bytes a database takes, its write-ahead log included."""
    return sum(file.stat().st_size for file in (path, path.with_name(f"{path.name}-wal")) if file.exists())


async def until(condition: Callable[[], bool], within_s: float, what: str) -> None:
    """Wait until something holds; looks every 50 ms, since each look may open a file."""
    end = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end, f"not within {within_s} s: {what}"
        await asyncio.sleep(0.05)
