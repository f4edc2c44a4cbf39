"""Due: the time line by which deliveries wait, which no jump of the wall clock moves.

schedule → [due] → lane, ledger

Law 1: within a process it goes on as the monotonic clock does.
Law 2: from one process to the next it goes on by the wall clock, less what that is known to have jumped since the ledger was made.
"""

from services.runtime.clock import Clock, unix_ms


class DueClock:
    """Reads milliseconds on that line: those since 1970, as long as the wall clock has never jumped."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ahead_ms = 0
        self.go_on(0)

    def go_on(self, jumped_ms: int) -> None:
        """Begin where the ledger's rows stand, given by how much the wall clock has jumped since it was made (forward: positive)."""
        self._ahead_ms = unix_ms(self._clock) - self._monotonic_ms() - jumped_ms

    def now_ms(self) -> int:
        """Return the present on the line; what is due by then is due."""
        return self._monotonic_ms() + self._ahead_ms

    def jumped_ms(self) -> int:
        """Return by how much the wall clock has jumped since the ledger was made."""
        return unix_ms(self._clock) - self.now_ms()

    def _monotonic_ms(self) -> int:
        return int(self._clock.monotonic() * 1000)
