"""Due: the time line by which deliveries wait, which no jump of the wall clock moves.

schedule → [due] → lane, ledger

Law 1: within a process it goes on as the monotonic clock does.
Law 2: from one process to the next it goes on by the wall clock, less what that is known to have jumped since the ledger was made, and
never from before a time by which rows were written.
Law 3: nothing is old by one clock alone: neither by a wall clock that is far ahead for a while, nor by this line if it began with
such a clock.
"""

from services.runtime.clock import Clock, unix_ms
from services.runtime.steady_clock import SteadyClock, confirm_s


class DueClock:
    """Reads milliseconds on that line: those since 1970, as long as the wall clock has never jumped."""

    def __init__(self, clock: Clock, expiry_s: float) -> None:
        """`expiry_s` is about the age that is measured: the shorter, the sooner a step of the wall clock counts."""
        self._clock = clock
        self.wall = SteadyClock(clock, confirm_s(expiry_s))
        """The wall clock without steps that have not lasted."""
        self._ahead_ms = 0
        self.go_on(0, 0)

    def go_on(self, jumped_ms: int, written_ms: int) -> None:
        """Begin where the ledger's rows stand.

        Given are by how much the wall clock has jumped since the ledger was made (forward: positive), and when rows were written last,
        on this line.
        """
        self._ahead_ms = max(unix_ms(self._clock) - jumped_ms, written_ms) - self._monotonic_ms()

    def now_ms(self) -> int:
        """Return the present on the line; what is due by then is due."""
        return self._monotonic_ms() + self._ahead_ms

    def jumped_ms(self) -> int:
        """Return by how much the wall clock has jumped since the ledger was made; to be asked every second, so that no step goes unseen."""
        self.wall.now()
        return unix_ms(self._clock) - self.now_ms()

    def age_ms(self, accepted_ms: int) -> int:
        """Return how old an event is by both this line and the wall clock; 0 while the wall clock is in doubt."""
        if not self.wall.settled():
            return 0
        return max(0, min(self.now_ms(), unix_ms(self.wall)) - accepted_ms)

    def _monotonic_ms(self) -> int:
        return int(self._clock.monotonic() * 1000)
