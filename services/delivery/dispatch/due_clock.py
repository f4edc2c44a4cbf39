"""Due clock: the clock by which deliveries wait; no jump of the wall clock moves it.

retry_policy → [due_clock] → lane, ledger

Law 1: within a process it advances as the monotonic clock does.
Law 2: a new process starts it at the wall clock's time, less the known jumps of the wall clock since the ledger was made, and never
before the time at which rows were last written.
Law 3: an event is old only if both clocks say so. Neither a wall clock that is far ahead for a while makes it old, nor a due clock that
started from such a wall clock.
"""

from services.runtime.clock import Clock, unix_ms
from services.runtime.steady_clock import SteadyClock, confirm_s


class DueClock:
    """Reads milliseconds; they count from 1970 as long as the wall clock has never jumped."""

    def __init__(self, clock: Clock, expiry_s: float) -> None:
        """`expiry_s` is about the age that is measured. The shorter it is, the sooner a step of the wall clock counts."""
        self._clock = clock
        self.wall = SteadyClock(clock, confirm_s(expiry_s))
        """The wall clock, without steps that have not lasted yet."""
        self._ahead_ms = 0
        self.resume_at(0, 0)

    def resume_at(self, jumped_ms: int, written_ms: int) -> None:
        """Start at the time of the ledger's rows.

        `jumped_ms` is by how much the wall clock has jumped since the ledger was made (positive: forward). `written_ms` is when rows were
        last written, by this clock.
        """
        self._ahead_ms = max(unix_ms(self._clock) - jumped_ms, written_ms) - self._monotonic_ms()

    def now_ms(self) -> int:
        """Return the present time; a delivery with this due time or an earlier one is due."""
        return self._monotonic_ms() + self._ahead_ms

    def jumped_ms(self) -> int:
        """Return by how much the wall clock has jumped since the ledger was made; call it every second, so that no step goes unseen."""
        self.wall.now()
        return unix_ms(self._clock) - self.now_ms()

    def age_ms(self, accepted_ms: int) -> int:
        """Return an event's age by this clock or the wall clock, whichever is less; 0 while the wall clock is in doubt."""
        if not self.wall.settled():
            return 0
        return max(0, min(self.now_ms(), unix_ms(self.wall)) - accepted_ms)

    def _monotonic_ms(self) -> int:
        return int(self._clock.monotonic() * 1000)
