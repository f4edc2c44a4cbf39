import contextlib
import errno
import os
import random
import shutil
import sqlite3
import sys
from pathlib import Path

import pytest

from tests.faults.shim import SHADOWED, Control, lose_power
from tests.support.service_spawner import Spawner

TEN = list(range(10))


@pytest.fixture
def told(tmp_path: Path) -> Path:
    (tmp_path / "told").mkdir()
    (tmp_path / "data").mkdir()
    return tmp_path / "told"


def write(spawner: Spawner, told: Path, synchronous: str) -> tuple[str, int, int]:
    """Run the writer until it is killed; return "ok" or its error, and its wall clock and boot clock in seconds."""
    data, output = told.parent / "data", told / "output"
    output.write_text("")
    command = [sys.executable, "-m", "tests.faults.disk_writer", str(told), str(data / "a.db"), synchronous]
    process = spawner.spawn(command, {**os.environ, SHADOWED: str(data)}, output)
    assert process.wait() == -9, output.read_text()
    process.stdin.close()
    said, wall, boot = output.read_text().split()
    return said, int(wall), int(boot)


def power_is_lost(told: Path, kept: float = 0.0) -> None:
    lose_power(told, told.parent / "data", kept=kept, rng=random.Random(7))


def stored(told: Path) -> list[int]:
    with contextlib.closing(sqlite3.connect(told.parent / "data" / "a.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return [row[0] for row in connection.execute("SELECT number FROM rows")]


@pytest.mark.parametrize("kept", [0.0, 0.5])
def test_what_was_synced_outlives_a_loss_of_power(faulty_spawner: Spawner, told: Path, kept: float) -> None:
    """The test does it twice, since a service must be able to go on from what is left."""
    for times in (1, 2):
        assert write(faulty_spawner, told, "FULL")[0] == "ok"
        power_is_lost(told, kept)
        assert stored(told) == TEN * times


def test_what_was_not_synced_is_lost(faulty_spawner: Spawner, told: Path) -> None:
    """Without this test, the other tests of power loss would prove nothing."""
    assert write(faulty_spawner, told, "FULL")[0] == "ok"
    assert write(faulty_spawner, told, "OFF")[0] == "ok"
    power_is_lost(told)
    assert stored(told) == TEN


def test_a_file_whose_name_was_not_synced_is_lost(faulty_spawner: Spawner, told: Path) -> None:
    assert write(faulty_spawner, told, "OFF")[0] == "ok"
    wal = told.parent / "data" / "a.db-wal"
    assert wal.exists()
    power_is_lost(told)
    assert not wal.exists()


def test_a_later_sync_does_not_make_up_for_a_failed_one(faulty_spawner: Spawner, told: Path) -> None:
    """As on Linux: pages that a process reads back after a failed sync may not be on disk, and then later writes are lost too."""
    assert write(faulty_spawner, told, "FULL")[0] == "ok"
    Control(told, "writer").fail_syncs(errno.EIO, times=1)
    assert write(faulty_spawner, told, "FULL")[0] == "SQLITE_IOERR_FSYNC"
    assert write(faulty_spawner, told, "FULL")[0] == "ok"
    assert stored_as_read(told) == [*TEN, 0, *TEN]
    power_is_lost(told)
    assert stored(told) == TEN


def stored_as_read(told: Path) -> list[int]:
    """Return the stored numbers without changing any file."""
    copy = told.parent / "copy"
    shutil.copytree(told.parent / "data", copy)
    with contextlib.closing(sqlite3.connect(copy / "a.db")) as connection:
        return [row[0] for row in connection.execute("SELECT number FROM rows")]


def test_writes_fail_as_they_are_told_to(faulty_spawner: Spawner, told: Path) -> None:
    control = Control(told, "writer")
    assert write(faulty_spawner, told, "FULL")[0] == "ok"
    control.fail_writes(errno.ENOSPC)
    assert write(faulty_spawner, told, "FULL")[0] == "SQLITE_FULL"
    assert control.refused
    control.restore()
    assert write(faulty_spawner, told, "FULL")[0] == "ok"
    assert stored(told) == TEN * 2


def test_the_wall_clock_is_moved_and_no_other(faulty_spawner: Spawner, told: Path) -> None:
    _, wall, boot = write(faulty_spawner, told, "OFF")
    Control(told, "writer").shift_clock(-3600)
    _, moved_wall, moved_boot = write(faulty_spawner, told, "OFF")
    assert -3600 <= moved_wall - wall < -3500
    assert 0 <= moved_boot - boot < 100
