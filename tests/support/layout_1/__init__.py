"""Layout 1: databases as the first layout's programs left them, made from their schemas, and the state of a directory's files."""

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

SERVICES = ("subscription", "ingest", "delivery")
# The process is killed in the middle of its work: the write-ahead log and its index stay.
_LEAVE_OPEN = """
import os, signal, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA journal_mode = WAL")
connection.execute("PRAGMA wal_autocheckpoint = 0")
connection.executescript(sys.stdin.read())
if sys.argv[2] == "closed":
    connection.close()
elif sys.argv[2] == "checkpointed":
    connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
    connection.execute("UPDATE alembic_version SET version_num = version_num")
os.kill(os.getpid(), signal.SIGKILL)
"""


def make_layout_1(directory: Path, *, state: str = "closed", services: tuple[str, ...] = SERVICES) -> None:
    """Make the databases of services in a directory.

    They are "closed", or their process was killed: "killed" before anything was moved out of the write-ahead log, or "checkpointed" after
    it.
    """
    directory.mkdir(parents=True, exist_ok=True)
    for service in services:
        schema = (Path(__file__).parent / f"{service}.sql").read_text(encoding="utf-8")
        write_database(directory / f"{service}.db", schema, state)


def write_database(path: Path, schema: str, state: str) -> None:
    """Write a database by SQL statements, and leave it in a state, as `make_layout_1` does."""
    done = subprocess.run([sys.executable, "-c", _LEAVE_OPEN, os.fspath(path), state], input=schema, text=True, check=False)  # noqa: S603 - our own program
    assert done.returncode == -signal.SIGKILL


def directory_state(directory: Path) -> dict[str, str]:
    """Return a digest of the content of every file below a directory, and "" for every directory, by name."""
    return {
        str(each.relative_to(directory)): "" if each.is_dir() else hashlib.sha256(each.read_bytes()).hexdigest()
        for each in sorted(directory.rglob("*"))
    }
