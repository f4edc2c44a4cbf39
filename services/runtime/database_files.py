"""Database files: notices when an open database no longer stands where it was opened.

SQLite goes on writing to a file that was removed or replaced: such commits succeed and are lost once the process ends.

Law: a store checks its files after each commit, before anybody hears of that commit.
"""

import os
from pathlib import Path

from services.runtime.lifecycle import FatalError


class FileGoneError(FatalError):
    """A database's file was removed or replaced, or its directory moved, while a service had it open."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path} was removed, replaced or moved while the service had it open; what was acknowledged stands in the file that was there:"
            " put that one back with its -wal, or start again with what is there now"
        )


class DatabaseFiles:
    """A database's file and the write-ahead log beside it, as they are while both are open."""

    def __init__(self, path: Path) -> None:
        """Note which files these are. A connection that has read from the database must be open.

        Raises `FileGoneError` if one of them is missing.
        """
        self._path = path
        self._paths = (os.fspath(path), f"{os.fspath(path)}-wal")
        self._identities = self._seen()

    def check(self) -> None:
        """Raise `FileGoneError` if a path leads to another file now, or to none (about 3 µs)."""
        if self._seen() != self._identities:
            raise FileGoneError(self._path)

    def _seen(self) -> list[tuple[int, int]]:
        try:
            return [(found.st_dev, found.st_ino) for found in map(os.stat, self._paths)]
        except OSError as error:
            raise FileGoneError(self._path) from error
