"""LogFile: a service's own log, which the supervisor keeps within bounds and reads along.

The service writes into the file itself, so its log outlives the supervisor, and neither waits for the other.
"""

import os
import re
import shutil
from pathlib import Path
from typing import BinaryIO

LOG_BYTES_MAX = 16 * 1024 * 1024
_LINE_BYTES_MAX = 64 * 1024
_ALARMING = re.compile(rb"\blevel=(warning|error|critical)\b", re.IGNORECASE)


class LogFile:
    """One service's log; the run before it stands beside it with the ending ``.1``."""

    def __init__(self, path: Path, *, bytes_max: int = LOG_BYTES_MAX) -> None:
        self.path = path
        self._bytes_max = bytes_max
        self._read_to = 0
        if path.exists():
            path.replace(self._older)

    @property
    def _older(self) -> Path:
        return self.path.with_name(f"{self.path.name}.1")

    def open(self) -> BinaryIO:
        """Open it for a service to append to."""
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        return os.fdopen(descriptor, "ab", buffering=0)

    def size(self) -> int:
        """Return its length in bytes."""
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    def alarming_lines(self) -> list[str]:
        """Return the whole lines of level warning and above written since the last call, and keep the file in bounds."""
        size = self.size()
        if size <= self._read_to:
            return []
        with self.path.open("rb") as file:
            file.seek(self._read_to)
            text = file.read(size - self._read_to)
        whole = text.rfind(b"\n") + 1
        if not whole and len(text) > _LINE_BYTES_MAX:
            whole = len(text)
        self._read_to += whole
        lines = [line.decode(errors="replace").rstrip() for line in text[:whole].splitlines() if _ALARMING.search(line)]
        if size > self._bytes_max:
            # The service appends, so it goes on at the file's new end.
            shutil.copyfile(self.path, self._older)
            os.truncate(self.path, 0)
            self._read_to = 0
        return lines

    def last_words(self, service: str, offset: int) -> str:
        """Return what a service that could not start has said after `offset`: its message, else its last line."""
        with self.path.open("rb") as file:
            file.seek(offset)
            text = file.read().decode(errors="replace").strip()
        _, found, message = text.rpartition(f"hooktide {service}: ")
        return message if found else text.rpartition("\n")[2]
