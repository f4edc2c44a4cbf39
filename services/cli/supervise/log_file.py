"""Log file: a service's own log; the supervisor follows it and limits its size.

The service itself writes into the file, so its log outlives the supervisor, and neither waits for the other.
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
    """One service's log. The log of the run before is beside it, with the ending ``.1``."""

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
        """Open the file so that a service can append to it."""
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        return os.fdopen(descriptor, "ab", buffering=0)

    def size(self) -> int:
        """Return the file's length in bytes."""
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    def alarming_lines(self) -> list[str]:
        """Return the complete lines of level warning and above since the last call, and limit the file's size."""
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
            # The service appends, so after the truncation it continues at the file's new end.
            shutil.copyfile(self.path, self._older)
            os.truncate(self.path, 0)
            self._read_to = 0
        return lines

    def last_words(self, service: str, offset: int) -> str:
        """Return why a service could not start, from the log after `offset`: its error message, else its last line."""
        with self.path.open("rb") as file:
            file.seek(offset)
            text = file.read().decode(errors="replace").strip()
        _, found, message = text.rpartition(f"hooktide {service}: ")
        return message if found else text.rpartition("\n")[2]
