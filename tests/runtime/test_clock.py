import time
from collections.abc import Iterator

import pytest

from services.runtime.clock import SystemClock, unix_ms
from tests.support.clock import MovedClock


@pytest.fixture
def clock() -> Iterator[SystemClock]:
    made = SystemClock()
    yield made
    # A service has one clock, which keeps its file open for as long as the process runs.
    scheduled = made._scheduled  # noqa: SLF001 - nothing else closes it
    if scheduled is not None:
        scheduled.close()


def test_milliseconds_are_rounded_down() -> None:
    assert unix_ms(MovedClock(1_800_000_000.9996)) == 1_800_000_000_999


def test_the_system_s_clock_has_wall_time_and_times_that_never_go_back(clock: SystemClock) -> None:
    before = time.time()
    assert before <= clock.now() <= time.time()
    for read in (clock.monotonic, clock.boottime):
        first = read()
        assert read() >= first


def test_a_thread_that_works_is_busy(clock: SystemClock) -> None:
    """The thread counts as busy also while the system keeps it from running, so other load does not matter here."""
    began, worked_from = clock.busy(), time.thread_time()
    while time.thread_time() - worked_from < 0.05:
        pass
    assert clock.busy() - began >= 0.04
