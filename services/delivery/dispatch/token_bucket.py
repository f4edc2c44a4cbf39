"""Token bucket: how many attempts may begin, if a subscription has a rate.

lane → dispatcher → [rate_limit: token_bucket] → sender

Law 1: pure; time (seconds of a monotonic clock) arrives as an argument.
Law 2: in no second do more attempts begin than the rate permits, as long as each caller waits for `wait_s` before it takes a token.
"""

from dataclasses import dataclass

# A burst holds the attempts of this many seconds, so that a high rate (10,000 a second) does not need a timer for each attempt.
_BURST_S = 0.02
# The part of a token that rounding may lose.
_ROUNDING = 1e-6


@dataclass(slots=True)
class TokenBucket:
    """The tokens of one lane, one for each attempt; full at first."""

    taken: float = 0.0
    """How many tokens were missing from a full bucket at the time `at`."""
    at: float = 0.0
    """When `taken` was last computed."""

    def wait_s(self, rate_per_second: float, now: float) -> float:
        """Return how many seconds it takes until there is a whole token; 0 if there is one now."""
        short = self._missing(rate_per_second, now) + 1 - _burst(rate_per_second)
        return short / _refill(rate_per_second) if short > _ROUNDING else 0.0

    def full_in_s(self, rate_per_second: float, now: float) -> float:
        """Return how many seconds it takes until no token is missing; from then on the bucket acts like a new one."""
        missing = self._missing(rate_per_second, now)
        return missing / _refill(rate_per_second) if missing > _ROUNDING else 0.0

    def take(self, rate_per_second: float, now: float) -> None:
        """Take a token. An empty bucket goes into debt, and the next wait is longer."""
        self.taken, self.at = self._missing(rate_per_second, now) + 1, now

    def _missing(self, rate_per_second: float, now: float) -> float:
        return max(0.0, self.taken - (now - self.at) * _refill(rate_per_second))


def _burst(rate_per_second: float) -> float:
    return max(1.0, rate_per_second * _BURST_S)


def _refill(rate_per_second: float) -> float:
    # A full bucket and the whole tokens that are added within a second together do not exceed the rate.
    return rate_per_second - (_burst(rate_per_second) - 1)
