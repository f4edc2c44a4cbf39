"""Due clock: the time by which deliveries wait goes on, whatever the wall clock does."""

from dataclasses import dataclass

from services.delivery.dispatch.due_clock import DueClock
from tests.support.clock import MovedClock

EXPIRY_S = 7 * 86400.0
DAY_MS = 86_400_000
BEGAN_S = 1_700_000_000.0


@dataclass
class Clock(MovedClock):
    """A clock whose wall time may jump."""

    time_s: float = BEGAN_S
    ahead_s: float = 0.0

    def now(self) -> float:
        """Return the time to which the test moved the clock, plus the jump."""
        return self.time_s + self.ahead_s


def test_a_jump_of_the_wall_clock_moves_no_due_time_and_is_measured() -> None:
    clock = Clock()
    due = DueClock(clock, EXPIRY_S)
    began_ms = due.now_ms()
    clock.time_s, clock.ahead_s = BEGAN_S + 60.0, -3600.0
    assert due.now_ms() == began_ms + 60_000
    assert due.jumped_ms() == -3_600_000


def test_after_a_restart_it_goes_on_in_spite_of_the_jumps_before() -> None:
    """The ledger keeps by how much the wall clock has jumped."""
    clock = Clock(ahead_s=5000.0)
    due = DueClock(clock, EXPIRY_S)
    due.resume_at(5_000_000, 0)
    assert due.now_ms() == int(BEGAN_S * 1000)


def test_it_never_starts_before_a_time_at_which_rows_were_written() -> None:
    """The wall clock may have gone back while no process ran; otherwise waiting rows would wait that much longer."""
    clock = Clock(ahead_s=-7200.0)
    due = DueClock(clock, EXPIRY_S)
    written_ms = int(BEGAN_S * 1000)
    due.resume_at(0, written_ms)
    assert due.now_ms() == written_ms
    clock.time_s += 1.0
    assert due.now_ms() == written_ms + 1000


def test_an_event_is_old_only_by_both_clocks_and_never_while_the_wall_clock_is_in_doubt() -> None:
    clock = Clock()
    due = DueClock(clock, EXPIRY_S)
    accepted_ms = int(BEGAN_S * 1000) - DAY_MS
    assert due.age_ms(accepted_ms) == 0, "in doubt at first"
    for _ in range(3 * 3600):
        clock.time_s += 1.0
        due.jumped_ms()
    assert due.age_ms(accepted_ms) == DAY_MS + 3 * 3_600_000

    clock.ahead_s = 365 * 86400.0
    due.jumped_ms()
    assert due.age_ms(accepted_ms) == 0, "in doubt after a jump"
    for _ in range(3 * 3600):
        clock.time_s += 1.0
        due.jumped_ms()
    assert due.age_ms(accepted_ms) == DAY_MS + 6 * 3_600_000, "by the due clock, though the wall clock is a year ahead"
