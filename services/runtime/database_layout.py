"""Database layout: refuses a database that was written with another layout of ids, places and tables, before anything touches it.

Migrations lead from one schema to the next within a layout. No migration leads from one layout to another, because other databases,
emitters and consumers hold ids and places of the former layout.

Law: to find the layout changes no file and makes none, whether the database was closed or its process was killed.
"""

import contextlib
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

from services.runtime.service_process import StartError

LAYOUT = 3
"""The layout that this version reads and writes; each service's first migration stores it in `meta` under the name `layout`."""
_FIRST_LAYOUT = 1
"""The layout of the databases that store none."""
_LOG_HEADER_BYTES = 32
_LOG_MAGIC = {bytes.fromhex("377f0682"), bytes.fromhex("377f0683")}
_PAGE_BYTES = {1 << bits for bits in range(9, 17)}


def refuse_other_layout(path: Path) -> None:
    """Raise `StartError` if a database has another layout than `LAYOUT`; a file that is missing or empty has no layout yet.

    Other files that no service can use, such as damaged ones, are left to those who open them.
    """
    try:
        layout = _stored_layout(path)
    except (sqlite3.OperationalError, OSError) as error:
        message = f"cannot open {path}: {error}; check that the file and its directory exist and can be written"
        raise StartError(message) from error
    if layout is None or layout == LAYOUT:
        return
    found = f"{path} has data of layout {layout}, and this version of Hooktide uses layout {LAYOUT}; nothing was changed"
    serving = "an older version" if layout < LAYOUT else "a newer version"
    message = (
        f"{found}: start with another HOOKTIDE_DATA_DIR, or move {path.parent} away and keep it; {serving} of Hooktide, the one that wrote"
        " it, can still serve it"
    )
    raise StartError(message)


def _stored_layout(path: Path) -> int | None:
    """Return a database's layout; None if it has no tables, or is no database of Hooktide."""
    log, shared = (path.with_name(f"{path.name}-{end}") for end in ("wal", "shm"))
    try:
        if not path.exists() or path.stat().st_size == 0:
            return None
        if not log.exists() or _is_empty(log):
            # Immutable: without it, SQLite would make the files of a write-ahead log. It would read the index of an empty log in vain, and
            # fail with SQLITE_PROTOCOL after more than ten seconds.
            return _layout_in(path, "immutable=1")
        if shared.exists():
            # The process was killed, or is running. The index of its write-ahead log is only read, and rebuilt in memory if need be.
            return _layout_in(path, "mode=ro&readonly_shm=1")
        # A copy of a killed process's files: the database alone tells if the layout was there at its last checkpoint.
        with contextlib.suppress(sqlite3.Error):
            if (layout := _layout_in(path, "immutable=1")) == LAYOUT:
                return layout
        with _copied(path, log) as copy:
            return _layout_in(copy, "mode=rw")
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError:
        return None


def _is_empty(log: Path) -> bool:
    """Return whether a write-ahead log has no frames, as when its process was killed right after it began the log.

    SQLite reads nothing from a log whose header has a wrong magic number or page size: https://www.sqlite.org/fileformat2.html#walformat
    """
    with log.open("rb") as file:
        head = file.read(_LOG_HEADER_BYTES + 1)
    page_bytes = int.from_bytes(head[8:12], "big")
    is_valid = head[:4] in _LOG_MAGIC and page_bytes in _PAGE_BYTES
    return len(head) <= _LOG_HEADER_BYTES or not is_valid


def _layout_in(path: Path, options: str) -> int | None:
    uri = f"{path.absolute().as_uri()}?{options}"
    with contextlib.closing(sqlite3.connect(uri, uri=True)) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if "meta" in tables:
            row = connection.execute("SELECT value FROM meta WHERE name = 'layout'").fetchone()
            if row is not None:
                return int(row[0])
        has_migrated = "alembic_version" in tables and connection.execute("SELECT 1 FROM alembic_version").fetchone() is not None
        return _FIRST_LAYOUT if has_migrated and len(tables) > 1 else None


@contextlib.contextmanager
def _copied(*files: Path) -> Iterator[Path]:
    """Copy files into a directory of their own; yield the path of the first copy."""
    with tempfile.TemporaryDirectory(prefix="hooktide-layout-") as directory:
        copies = [Path(shutil.copy(file, directory)) for file in files]
        yield copies[0]
