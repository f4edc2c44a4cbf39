"""Ledger cut: a start divides the ledgers for another number of workers, also after crashes, and refuses files that do not fit."""

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from services.delivery.ledger.ledger_map import slots_of
from services.delivery.ledger.sqlite import ledger_cut
from services.delivery.ledger.sqlite.ledger_cut import ensure_cut
from services.delivery.ledger.sqlite.ledger_files import ledger_file, numbers_there, owned_file
from services.runtime import failpoints
from services.runtime.database import sole_owner
from services.runtime.service_process import StartError
from tests.delivery.ledger.cut_ledgers import LOG_ID, changing, fill, finish_in, groups_of, held, jump_clock, slots_with_rows, stand_at
from tests.delivery.ledger.deliveries import DAY_MS, NOW_MS
from tests.simulation.cut_store import make_if_missing


class CrashError(Exception):
    """What a test lets happen at a failpoint."""


@pytest.fixture
async def database(tmp_path: Path) -> Path:
    """A ledger of one worker that has rows of every kind."""
    path = tmp_path / "delivery.db"
    await fill(path)
    return path


def check(database: Path, workers: int, before: dict[str, list[object]]) -> None:
    """Check that the files hold what they held before, each slot in the file of its worker."""
    assert held(database) == before
    for number in numbers_there(database):
        assert slots_with_rows(ledger_file(database, number)) <= set(slots_of(number, workers))


def at_call(number: int, points: list[str]) -> Callable[[str], None]:
    """Return a failpoint that crashes when it is reached for the `number`-th time, and notes the points."""

    def reached(point: str) -> None:
        points.append(point)
        if len(points) == number:
            raise CrashError(point)

    return reached


def test_the_ledgers_are_cut_into_four_then_two_then_one_and_hold_the_same(database: Path) -> None:
    """Slots of files that stand at different places, with clocks that have jumped differently, keep their places and their due times."""
    before = held(database)
    assert {name for name, rows in before.items() if not rows} == set()
    assert ensure_cut(database, 4) == [ledger_file(database, number) for number in range(4)]
    check(database, 4, before)
    for number, (position, jumped) in enumerate([(130, 0), (110, 5000), (110, -7000), (120, 90)]):
        stand_at(ledger_file(database, number), position)
        jump_clock(ledger_file(database, number), jumped)
        with changing(ledger_file(database, number)) as connection:
            connection.execute("INSERT INTO outbox VALUES (?, 'con_1', x'00', ?)", (f"notice of {number}", NOW_MS))
    before = held(database)
    now_ms = NOW_MS + DAY_MS
    ensure_cut(database, 2, now_ms)
    check(database, 2, before)
    assert groups_of(database) == [(1, 110, 64), (2, 130, 64)]
    stand_at(database, 115, "sub_" + "1" * 32)
    before = held(database)
    assert ensure_cut(database, 1, now_ms) == [database]
    check(database, 1, before)
    assert groups_of(database) == [(1, 110, 64), (2, 115, 64), (3, 120, 64), (4, 130, 64)]


def test_a_file_whose_worker_was_away_when_the_wall_clock_went_back_makes_nothing_early(database: Path) -> None:
    """Its deliveries wait as long as they would have waited in their file, and those of the other file as long as before."""
    ensure_cut(database, 2)
    hour_ms = 3_600_000
    jump_clock(database, -hour_ms)
    ensure_cut(database, 1, now_ms=NOW_MS - hour_ms + 500)
    with changing(database) as connection:
        [(written,)] = connection.execute("SELECT value FROM meta WHERE name = 'written_ms'").fetchall()
        rows = connection.execute("SELECT slot, due_ms FROM open WHERE due_ms > 0").fetchall()
    assert int(written) == NOW_MS
    assert {due_ms for slot, due_ms in rows if slot < 128} == {NOW_MS}
    assert {due_ms for slot, due_ms in rows if slot >= 128} == {NOW_MS + 500}


def test_groups_at_one_place_become_one(database: Path) -> None:
    for workers in (4, 2, 1):
        ensure_cut(database, workers)
    assert groups_of(database) == [(1, 100, 256)]


def test_finished_deliveries_stay_in_their_file_and_an_empty_file_is_removed(database: Path) -> None:
    for workers in (4, 1):
        ensure_cut(database, workers)
    assert numbers_there(database) == {0}
    ensure_cut(database, 4)
    finish_in(ledger_file(database, 2), 70)
    ensure_cut(database, 1)
    assert numbers_there(database) == {0, 2}
    assert groups_of(ledger_file(database, 2))[0][2] == 0


def test_a_ledger_that_always_had_one_worker_is_not_changed(database: Path) -> None:
    before = database.read_bytes(), sorted(path.name for path in database.parent.iterdir())
    assert ensure_cut(database, 1) == [database]
    assert (database.read_bytes(), sorted(path.name for path in database.parent.iterdir())) == before


def test_a_new_directory_gets_the_files_of_all_workers(tmp_path: Path) -> None:
    database = tmp_path / "delivery.db"
    assert ensure_cut(database, 1) == [database]
    assert not database.exists()
    for path, number in zip(ensure_cut(database, 3), range(3), strict=True):
        assert slots_with_rows(path) == set(slots_of(number, 3))


@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 1), (3, 2), (2, 2)])
def test_a_crash_at_any_step_loses_nothing_whatever_the_next_start_wants(
    database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: int, after: int
) -> None:
    """The next start wants the same number again, or the former one, or another."""
    monkeypatch.setattr(ledger_cut, "migrate", make_if_missing)
    ensure_cut(database, before)
    for number in range(1, before):
        stand_at(ledger_file(database, number), 100 + number)
        finish_in(ledger_file(database, number), 70 + number)
    content, points, crash_at = held(database), ["first"], 0
    while points:
        crash_at += 1
        copy = tmp_path / f"crash-{crash_at}"
        copy.mkdir()
        for file in database.parent.glob("delivery*.db"):
            shutil.copy(file, copy)
        points = []
        with monkeypatch.context() as patch:
            patch.setattr(failpoints, "reached", at_call(crash_at, points))
            try:
                ensure_cut(copy / database.name, after)
            except CrashError:
                pass
            else:
                points = []
        for then in {after, (before, 4)[crash_at % 2]}:
            again = shutil.copytree(copy, tmp_path / "again")
            ensure_cut(again / database.name, then)
            check(again / database.name, then, content)
            shutil.rmtree(again)
        shutil.rmtree(copy)
    assert crash_at > 2 * after


@pytest.mark.parametrize("point", ["ledger_cut.copying", "ledger_cut.committed", "ledger_cut.settling"])
def test_the_next_start_finishes_what_a_killed_process_left(database: Path, point: str) -> None:
    before = held(database)
    script = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from services.delivery.ledger.sqlite.ledger_cut import ensure_cut\n"
        "from services.runtime import failpoints\n"
        "failpoints.reached = lambda point: os.kill(os.getpid(), signal.SIGKILL) if point == sys.argv[2] else None\n"
        "ensure_cut(Path(sys.argv[1]), 4)\n"
    )
    killed = subprocess.run([sys.executable, "-c", script, database, point], check=False, timeout=60, capture_output=True)  # noqa: S603 - ours
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    ensure_cut(database, 2)
    check(database, 2, before)


def test_a_former_file_that_gets_a_worker_again_follows_the_log_of_the_others_and_keeps_no_old_copies(database: Path) -> None:
    """A repair may have let the others follow another log meanwhile. There, other events have the positions of the old copies."""
    ensure_cut(database, 2)
    former = ledger_file(database, 1)
    finish_in(former, 70)
    with changing(former) as connection:
        connection.execute("INSERT INTO payloads VALUES (0, 17, x'00')")
    ensure_cut(database, 1)
    with changing(former) as connection:
        assert connection.execute("SELECT count(*) FROM payloads").fetchone() == (0,)
        connection.execute("INSERT OR REPLACE INTO meta VALUES ('log_id', 'a former log')")
    before = held(database)
    for _ in range(2):
        ensure_cut(database, 2)
        check(database, 2, before)
    with changing(former) as connection:
        assert connection.execute("SELECT value FROM meta WHERE name = 'log_id'").fetchone() == (LOG_ID,)


def test_a_worker_that_starts_again_alone_needs_the_ledger_that_it_had(database: Path, tmp_path: Path) -> None:
    """With an empty ledger it would deliver events again, or none. A file for another number of workers has other slots."""
    assert ensure_cut(database, 2) == [owned_file(database, number, 2) for number in range(2)]
    own = ledger_file(database, 1)
    with pytest.raises(StartError, match=f"{own} was removed or replaced while its service ran"):
        owned_file(database, 1, 3)
    own.rename(tmp_path / "away")
    with pytest.raises(StartError, match=f"{own} was removed or replaced while its service ran"):
        owned_file(database, 1, 2)
    assert not own.exists()


@pytest.mark.parametrize("workers", [0, 17])
def test_a_number_of_workers_outside_1_to_16_is_refused(tmp_path: Path, workers: int) -> None:
    with pytest.raises(StartError, match=f"HOOKTIDE_DELIVERY_WORKERS={workers}: there can be 1 to 16 delivery workers"):
        ensure_cut(tmp_path / "delivery.db", workers)


def refused(database: Path, workers: int = 2) -> str:
    """Return why a start is refused; it must have changed nothing."""
    files = {path: path.read_bytes() for path in database.parent.glob("delivery*.db")}
    with pytest.raises(StartError) as caught:
        ensure_cut(database, workers)
    assert {path: path.read_bytes() for path in database.parent.glob("delivery*.db")} == files
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("missing", [0, 2])
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_a_missing_file_is_named(database: Path, missing: int, workers: int) -> None:
    ensure_cut(database, 4)
    ledger_file(database, missing).unlink()
    text = refused(database, workers)
    assert text.startswith(f"{ledger_file(database, missing)} is missing")
    assert text.endswith("nothing was changed: put back all ledger files of one moment, from one backup")


@pytest.mark.parametrize("restored", [0, 2])
@pytest.mark.parametrize("since", ["another cut", "another start"])
def test_a_file_that_was_restored_alone_is_named(database: Path, tmp_path: Path, restored: int, since: str) -> None:
    ensure_cut(database, 4)
    shutil.copy(ledger_file(database, restored), tmp_path / "copy")
    for workers in (2, 4) if since == "another cut" else (4,):
        ensure_cut(database, workers)
    shutil.copy(tmp_path / "copy", ledger_file(database, restored))
    assert refused(database, 4).startswith(f"{ledger_file(database, restored)} is an older copy than")


def test_a_ledger_of_one_worker_that_was_restored_beside_the_files_of_several_is_named(database: Path, tmp_path: Path) -> None:
    shutil.copy(database, tmp_path / "copy")
    ensure_cut(database, 2)
    shutil.copy(tmp_path / "copy", database)
    assert refused(database, 1).startswith(f"{database} is an older copy than the ledger file 1")


def test_a_file_of_another_log_is_named(database: Path) -> None:
    ensure_cut(database, 2)
    with changing(ledger_file(database, 1)) as connection:
        connection.execute("UPDATE meta SET value = 'another log' WHERE name = 'log_id'")
    assert refused(database, 1).startswith(f"{ledger_file(database, 1)} follows another log")


def test_a_file_without_one_of_its_slots_is_named(database: Path) -> None:
    ensure_cut(database, 2)
    with changing(ledger_file(database, 1)) as connection:
        connection.execute("DELETE FROM slots WHERE slot = 200")
    assert refused(database, 2).startswith(f"{ledger_file(database, 1)} does not have the slots that it must have")


def test_a_file_that_another_process_has_open_is_named(database: Path) -> None:
    ensure_cut(database, 2)
    with sole_owner(ledger_file(database, 1)):
        assert refused(database, 1).startswith(f"{ledger_file(database, 1)} is in use by another process")


def test_rows_that_a_repair_moved_aside_in_each_file_keep_their_copies(database: Path) -> None:
    """Each file numbers such rows for itself, so two files may give one position to two events."""
    ensure_cut(database, 2)
    for number in range(2):
        with changing(ledger_file(database, number)) as connection:
            connection.execute("DELETE FROM payloads")
            [(position, row_id)] = connection.execute("SELECT position, id FROM open ORDER BY id LIMIT 1").fetchall()
            connection.execute("UPDATE open SET position = -9 WHERE id = ?", (row_id,))
            connection.execute("INSERT INTO payloads VALUES (0, -9, ?)", (f"event of {position}".encode(),))
    before = held(database)
    assert len(before["copies"]) == 2
    ensure_cut(database, 1)
    assert held(database)["copies"] == before["copies"]
