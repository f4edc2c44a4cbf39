"""Sink health: the failures of one sink, and until when no attempt to it may start.

dispatcher → [sink_health: circuit_breaker] → lane

Law 1: pure; time and chance arrive as arguments.
Law 2: a record belongs to one sink, identified by its revision. A subscription's next sink starts without a record.
"""

from dataclasses import dataclass
from typing import NamedTuple

from services.delivery.dispatch.circuit_breaker import CircuitBreaker
from services.delivery.dispatch.retry_policy import GONE, pause_s, throttles

# A sink that is gone gets no attempt for this long, in which the registry may disable its subscription.
_GONE_PAUSE_S = 3600.0


class Verdict(NamedTuple):
    """What a failure begins. If several attempts that were under way together fail, only one of the failures begins it."""

    is_gone: bool
    """The sink has answered 410: it is gone for good."""
    opens: bool
    """Its breaker opens."""
    pauses: bool
    """The sink has asked for a pause, or is gone."""


@dataclass(slots=True)
class SinkHealth:
    """The health of a sink; made at its first failure."""

    sink_revision: int
    breaker: CircuitBreaker
    paused_until: float = 0.0
    """In seconds of the monotonic clock: the end of a pause that the sink has asked for, or of the pause after a 410."""
    pauses: int = 0
    """How often in a row the sink has asked for a pause without stating its length."""
    is_gone: bool = False

    def permits(self, now: float) -> bool:
        """Return whether an attempt may start now."""
        return now >= self.paused_until and self.breaker.permits(now)

    @property
    def is_open(self) -> bool:
        """Whether the breaker is open, so that at most one probe at a time may start."""
        return self.breaker.open_until is not None

    def failed(self, status: int, retry_after_s: float | None, now: float, chance: float) -> Verdict:
        """Note a failure; `retry_after_s` is how long the answer asks to wait, `chance` is uniform in [0, 1)."""
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

    def blocked_until(self, now: float) -> float | None:
        """Return when to check again whether an attempt may start; None if only an answer decides that, or if one may start now."""
        waits = [when for when in (self.breaker.open_until, self.breaker.rest_until, self.paused_until) if when is not None and when > now]
        return max(waits, default=None)

    @property
    def expires_at(self) -> float | None:
        """When this record makes no difference any more; None if that depends on an answer."""
        at = self.breaker.expires_at
        return None if at is None else max(at, self.paused_until)
