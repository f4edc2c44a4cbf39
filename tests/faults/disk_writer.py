"""Disk writer: commits ten rows one by one until a commit fails, prints the result, and kills itself at once."""

import os
import signal
import sqlite3
import sys
import time
from pathlib import Path

from tests.faults.shim import attach


def main(directory: Path, database: Path, synchronous: str) -> None:
    """Write; print "ok" or the error, and the wall clock and the boot clock in seconds."""
    attach(directory, "writer")
    connection = sqlite3.connect(database, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    connection.execute("CREATE TABLE IF NOT EXISTS rows (number INTEGER)")
    said = "ok"
    try:
        for number in range(10):
            connection.execute("INSERT INTO rows VALUES (?)", (number,))
    except sqlite3.OperationalError as error:
        said = error.sqlite_errorname
    sys.stdout.write(f"{said} {int(time.time())} {int(time.clock_gettime(time.CLOCK_BOOTTIME))}\n")
    sys.stdout.flush()
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
