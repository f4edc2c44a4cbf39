"""Database files: where a service's database is, and whether an open database's file was removed, replaced or moved.

SQLite goes on writing to such a file: the commits succeed, and they are lost once the process ends.

Law 1: a store checks its files after each commit, before it acknowledges the commit to anybody.
Law 2: if a service has stopped because its file was removed, its next start refuses to begin with an empty database. With one, it would
send everything again, or cancel it.
"""

import contextlib
import os
from pathlib import Path

from services.runtime.service_process import FatalError, StartError

# The content of the lock file beside a database that was removed while it was open.
_REMOVED = b"removed\n"


def named_database(url: str, data_dir: Path, service: str) -> Path:
    """Return the SQLite file of a service: the one in `url` (``sqlite:///path``) or the default in the data directory.

    A symbolic link is followed, since SQLite keeps its journal beside the real file, and we keep the lock there. Raises `StartError` for
    another engine.
    """
    if url and not url.startswith("sqlite:///"):
        message = f"HOOKTIDE_{service.upper()}_DATABASE_URL: only sqlite:///path is supported; write for example sqlite:////var/lib/x.db"
        raise StartError(message)
    named = url.removeprefix("sqlite:///")
    if url and not named:
        message = f"HOOKTIDE_{service.upper()}_DATABASE_URL: sqlite:/// has no path of a file; write for example sqlite:////var/lib/x.db"
        raise StartError(message)
    if "?" in named or "@" in named:
        # This part may hold a password, and errors show the path.
        message = f"HOOKTIDE_{service.upper()}_DATABASE_URL: sqlite:///path must have neither ?parameters nor user@host; leave them out"
        raise StartError(message)
    path = Path(named) if url else data_dir / f"{service}.db"
    return path.resolve() if path.is_symlink() else path


def lock_file(path: Path) -> Path:
    """Return the lock file beside a database."""
    return path.with_name(path.name + ".lock")


def open_lock(path: Path) -> int:
    """Open a lock file, make it if it is missing, and return its descriptor. Raises `StartError` if it cannot be written."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        message = f"cannot write {path}: {error.strerror}; set HOOKTIDE_DATA_DIR to a directory that can be written"
        raise StartError(message) from error


def was_removed(path: Path, lock: int) -> bool:
    """Return whether a database was removed while it was open and is still missing; `lock` is the descriptor of its lock file."""
    is_noted = os.pread(lock, len(_REMOVED), 0) == _REMOVED
    if is_noted and path.exists():
        os.ftruncate(lock, 0)
    return is_noted and not path.exists()


class FileGoneError(FatalError):
    """A database's file was removed or replaced, or its directory moved, while a service had it open."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path} was removed, replaced or moved while the service had it open; the acknowledged data is in the former file: put "
            f"that file back with its -wal file, or remove {lock_file(path)} to begin without this data"
        )


class DatabaseFiles:
    """The identities of a database's file and of the write-ahead log beside it, as they were when both were opened."""

    def __init__(self, path: Path) -> None:
        """Note the identities. A connection that has read from the database must be open.

        Raises `FileGoneError` if one of them is missing.
        """
        self._path = path
        self._paths = (os.fspath(path), f"{os.fspath(path)}-wal")
        self._identities = self._seen()

    def check(self) -> None:
        """Raise `FileGoneError` if a path now leads to another file or to no file. The check takes about 3 µs."""
        if self._seen() != self._identities:
            raise FileGoneError(self._path)

    def _note_removal(self) -> None:
        # If the directory is gone as well, there is no place for the note.
        with contextlib.suppress(OSError), lock_file(self._path).open("r+b") as file:
            file.write(_REMOVED)

    def _seen(self) -> list[tuple[int, int]]:
        try:
            return [(found.st_dev, found.st_ino) for found in map(os.stat, self._paths)]
        except OSError as error:
            self._note_removal()
            raise FileGoneError(self._path) from error
