"""Bucket: how many requests may begin, where a subscription has a rate.

lane → [bucket] → push

Law 1: pure; time (seconds of a monotonic clock) arrives as an argument.
Law 2: in no second are more requests begun than the rate says, except for those that must not wait.
"""

from dataclasses import dataclass

# A high rate comes in bursts of so many seconds' requests: nobody is woken for each of ten thousand.
_BURST_S = 0.02
# What rounding may take from a token.
_ROUNDING = 1e-6


@dataclass(slots=True)
class Bucket:
    """Tokens of one lane, one for each request; full to begin with."""

    taken: float = 0.0
    """How many are missing from a full one."""
    at: float = 0.0
    """When that was so."""

    def wait_s(self, rate_per_second: float, now: float) -> float:
        """Return how long it takes until there is a whole token; 0 where there is one."""
        short = self._missing(rate_per_second, now) + 1 - _burst(rate_per_second)
        return short / _refill(rate_per_second) if short > _ROUNDING else 0.0

    def full_in_s(self, rate_per_second: float, now: float) -> float:
        """Return how long it takes until nothing is missing, from when on the bucket is as good as a new one."""
        missing = self._missing(rate_per_second, now)
        return missing / _refill(rate_per_second) if missing > _ROUNDING else 0.0

    def take(self, rate_per_second: float, now: float) -> None:
        """Take a token, also where there is none: the next wait is the longer."""
        self.taken, self.at = self._missing(rate_per_second, now) + 1, now

    def _missing(self, rate_per_second: float, now: float) -> float:
        return max(0.0, self.taken - (now - self.at) * _refill(rate_per_second))


def _burst(rate_per_second: float) -> float:
    return max(1.0, rate_per_second * _BURST_S)


def _refill(rate_per_second: float) -> float:
    # A full bucket and what a second adds to it are together no more than the rate.
    return rate_per_second - (_burst(rate_per_second) - 1)
