"""Failpoints: kills a running service when it reaches an armed failpoint, once."""

import contextlib
import os
import signal
from pathlib import Path

from services.runtime.failpoints import POINTS

_FILE = "armed"


def arm(directory: Path, point: str, hits: int = 1) -> None:
    """Let the next process that reaches a failpoint for the `hits`-th time from now on kill itself there."""
    assert point in POINTS, point
    part = directory / f"{_FILE}.part"
    part.write_text(f"{point} {hits}")
    part.replace(directory / _FILE)


def is_armed(directory: Path) -> bool:
    """Return whether the failpoint that was armed last has not killed a process yet."""
    return (directory / _FILE).exists()


def disarm(directory: Path) -> None:
    """Disarm the failpoint."""
    (directory / _FILE).unlink(missing_ok=True)


class Armed:
    """Replaces `failpoints.reached` of the services."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / _FILE
        self._seen = 0

    def __call__(self, point: str) -> None:
        """Kill this process if this failpoint is armed and was reached often enough."""
        with contextlib.suppress(FileNotFoundError):
            armed, _, hits = self._file.read_text().partition(" ")
            if armed == point:
                self._seen += 1
                if self._seen >= int(hits):
                    self._file.unlink()
                    os.kill(os.getpid(), signal.SIGKILL)
