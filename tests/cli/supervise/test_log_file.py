from pathlib import Path

import pytest

from services.cli.supervise.log_file import LogFile


@pytest.fixture
def log(tmp_path: Path) -> LogFile:
    return LogFile(tmp_path / "ingest.log", bytes_max=200)


def write(log: LogFile, text: str) -> None:
    with log.open() as file:
        file.write(text.encode())


def test_only_alarming_whole_lines_are_told_and_each_once(log: LogFile) -> None:
    assert log.alarming_lines() == []
    write(log, "level=info event=a\nlevel=warning event=b\nlevel=ERROR logger=c x\nlevel=war")
    assert log.alarming_lines() == ["level=warning event=b", "level=ERROR logger=c x"]
    assert log.alarming_lines() == []
    write(log, "ning event=d\n")
    assert log.alarming_lines() == ["level=warning event=d"]


def test_a_log_stays_within_its_bounds_while_it_is_written_to(log: LogFile, tmp_path: Path) -> None:
    with log.open() as file:
        for number in range(50):
            file.write(f"level=warning number={number}\n".encode())
            assert log.alarming_lines() == [f"level=warning number={number}"]
            assert log.size() <= 240
    assert (tmp_path / "ingest.log.1").stat().st_size <= 240


def test_the_log_of_the_run_before_is_put_aside(log: LogFile, tmp_path: Path) -> None:
    write(log, "before\n")
    LogFile(tmp_path / "ingest.log")
    assert (tmp_path / "ingest.log.1").read_text() == "before\n"
    assert log.size() == 0


def test_last_words_are_the_services_own_message_or_else_its_last_line(log: LogFile) -> None:
    write(log, "hooktide ingest: of an earlier start\n")
    offset = log.size()
    write(log, "level=info event=x\nTraceback\nValueError: y\n")
    assert log.last_words("ingest", offset) == "ValueError: y"
    write(log, "hooktide ingest: A=1: is wrong\n  B=2: too\n")
    assert log.last_words("ingest", offset) == "A=1: is wrong\n  B=2: too"
