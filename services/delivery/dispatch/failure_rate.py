"""Failure rate: which share of a sink's latest attempts has failed.

sink_health → circuit_breaker: [failure_rate]

Law 1: pure; time arrives as an argument.
Law 2: it counts the attempts that ended within the last 60 s, to the nearest ten seconds below, in a fixed number of counters.
"""

from dataclasses import dataclass, field

WINDOW_S = 60.0
_STEP_S = 10.0
_STEPS = 6


@dataclass(slots=True)
class FailureRate:
    """The attempts of one sink within the window."""

    ended: list[int] = field(default_factory=lambda: [0] * _STEPS)
    """How many attempts ended in each of the latest steps, in a ring."""
    failed: list[int] = field(default_factory=lambda: [0] * _STEPS)
    """How many of them failed."""
    step: int = 0
    """The number of the latest step, counted from the clock's beginning."""

    def note(self, now: float, *, failed: bool) -> None:
        """Note that an attempt has ended."""
        self._advance(now)
        at = self.step % _STEPS
        self.ended[at] += 1
        if failed:
            self.failed[at] += 1

    def reached(self, now: float, share: float, attempts_min: int) -> bool:
        """Return whether there were at least `attempts_min` attempts, and at least `share` of them failed."""
        self._advance(now)
        ended = sum(self.ended)
        return ended >= attempts_min and sum(self.failed) >= share * ended

    def clear(self) -> None:
        """Forget all attempts."""
        self.ended, self.failed = [0] * _STEPS, [0] * _STEPS

    @property
    def expires_at(self) -> float:
        """When it has forgotten the last failure; minus infinity if it counts none."""
        return max(
            ((self.step - age + _STEPS) * _STEP_S for age in range(_STEPS) if self.failed[(self.step - age) % _STEPS]),
            default=float("-inf"),
        )

    def _advance(self, now: float) -> None:
        step = int(now / _STEP_S)
        for each in range(max(self.step + 1, step - _STEPS + 1), step + 1):
            self.ended[each % _STEPS] = self.failed[each % _STEPS] = 0
        self.step = max(self.step, step)
