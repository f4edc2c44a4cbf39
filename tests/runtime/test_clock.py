import time

from services.runtime.clock import SystemClock, unix_ms
from tests.support.clock import MovedClock

# It keeps a file open, as in a service, which has one clock for as long as it runs.
CLOCK = SystemClock()


def test_milliseconds_are_rounded_down() -> None:
    assert unix_ms(MovedClock(1_800_000_000.9996)) == 1_800_000_000_999


def test_the_system_s_clock_has_wall_time_and_times_that_never_go_back() -> None:
    before = time.time()
    assert before <= CLOCK.now() <= time.time()
    for read in (CLOCK.monotonic, CLOCK.boottime):
        first = read()
        assert read() >= first


def test_a_thread_that_works_is_busy() -> None:
    """The thread counts as busy also while the system keeps it from running, so other load does not matter here."""
    began, worked_from = CLOCK.busy(), time.thread_time()
    while time.thread_time() - worked_from < 0.05:
        pass
    assert CLOCK.busy() - began >= 0.04
