"""Clock: the fake clock of all tests that run in real time; the simulation's virtual time has its own."""

import dataclasses


@dataclasses.dataclass
class MovedClock:
    """A clock that a test moves; it stands still otherwise."""

    time_s: float = 1_800_000_000.0
    suspended_s: float = 0.0
    """For how many seconds the machine was suspended; only boot time counts them."""

    def now(self) -> float:
        """Return the time to which the test moved the clock."""
        return self.time_s

    def monotonic(self) -> float:
        """Return the time to which the test moved the clock."""
        return self.time_s

    def boottime(self) -> float:
        """Return the time to which the test moved the clock, plus the time in suspension."""
        return self.time_s + self.suspended_s

    def busy(self) -> float:
        """Return 0."""
        return 0.0
