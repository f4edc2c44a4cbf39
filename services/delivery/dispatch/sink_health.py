"""Trouble: what is known of a sink that has failed, and until when it is spared.

dispatch → [trouble: breaker] → lane

Law 1: pure; time and chance arrive as arguments.
Law 2: it is of one sink alone, known by its revision; a subscription's next sink starts without it.
"""

from dataclasses import dataclass
from typing import NamedTuple

from services.delivery.dispatch.circuit_breaker import Breaker
from services.delivery.dispatch.retry_policy import GONE, pause_s, throttles

# A sink that is gone is left alone for so long; the registry may disable its subscription meanwhile.
_GONE_PAUSE_S = 3600.0


class Verdict(NamedTuple):
    """What begins with a failure; of failures that were under way together, with one of them."""

    is_gone: bool
    """The sink has said that it is gone for good."""
    opens: bool
    """Its breaker opens."""
    pauses: bool
    """It has asked for a pause."""


@dataclass(slots=True)
class Trouble:
    """What is known of a sink; made at its first failure."""

    sink_revision: int
    breaker: Breaker
    paused_until: float = 0.0
    """By the monotonic clock: it has asked for a pause, or has said that it is gone."""
    pauses: int = 0
    """How often in a row it has asked for one without saying for how long."""
    is_gone: bool = False

    def permits(self, now: float) -> bool:
        """Say whether an attempt may start now."""
        return now >= self.paused_until and self.breaker.permits(now)

    @property
    def is_open(self) -> bool:
        """Whether no more than one probe at a time is let through."""
        return self.breaker.open_until is not None

    def failed(self, status: int, retry_after_s: float | None, now: float, chance: float) -> Verdict:
        """Note a failure, with how long the answer asks to wait; `chance` is uniform in [0, 1)."""
        pauses = now >= self.paused_until
        gone = status == GONE and (pauses or not self.is_gone)
        if gone:
            self.is_gone = True
            self.paused_until = max(self.paused_until, now + _GONE_PAUSE_S)
        elif throttles(status) and (retry_after_s is not None or pauses):
            if retry_after_s is None:
                self.pauses += 1
                retry_after_s = pause_s(self.pauses)
            self.paused_until = max(self.paused_until, now + retry_after_s)
        return Verdict(gone, self.breaker.failed(now, chance), pauses and now < self.paused_until)

    def succeeded(self, now: float) -> None:
        """Note a success."""
        self.pauses = 0
        self.breaker.succeeded(now)

    def spared_until(self, now: float) -> float | None:
        """Return when to look whether an attempt may start; None where only an answer can tell, or nothing is in its way."""
        waits = [when for when in (self.breaker.open_until, self.breaker.rest_until, self.paused_until) if when is not None and when > now]
        return max(waits, default=None)

    @property
    def over_at(self) -> float | None:
        """From when on nothing of it makes a difference any more; None where that depends on an answer."""
        at = self.breaker.over_at
        return None if at is None else max(at, self.paused_until)
