"""Sink health: the failures of one sink, and until when no attempt to it may start.

dispatcher → [sink_health: circuit_breaker, failing_period] → lane

Law 1: pure; time and chance arrive as arguments.
Law 2: a record belongs to one sink, identified by its revision, and to one credential. If either changes, a new record begins.
Law 3: a delivery that fails again counts only if the sink has not succeeded since its attempt before. Otherwise the failure says
something about that delivery and not about the sink, and a few events that always fail would stop all others.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

from services.delivery.dispatch.circuit_breaker import CircuitBreaker
from services.delivery.dispatch.failing_period import FailingPeriod
from services.delivery.dispatch.retry_policy import GONE, pause_s, throttles
from services.delivery.request.credentials import Credential
from services.delivery.request.request_settings import RequestSettings

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
    credential: Credential | None = None
    """The credential that the sink got."""
    paused_until: float = 0.0
    """In seconds of the monotonic clock: the end of a pause that the sink has asked for, or of the pause after a 410."""
    pauses: int = 0
    """How often in a row the sink has asked for a pause without stating its length."""
    is_gone: bool = False
    failing: FailingPeriod = field(default_factory=FailingPeriod)
    """The failures since the last success."""
    told_failing_since_ms: int | None = None
    """Since when the sink fails, in ms since 1970, if its owner was told; None if not. It stays until the breaker closes."""
    is_recorded: bool = False
    """Whether the ledger may have a row of the lane."""
    succeeded_at: float = float("-inf")
    """When an attempt last succeeded, by the monotonic clock."""

    def is_of(self, settings: RequestSettings) -> bool:
        """Return whether this is the record of the sink and the credential of these settings."""
        return self.sink_revision == settings.sink_revision and self.credential == settings.credential

    def permits(self, now: float) -> bool:
        """Return whether an attempt may start now."""
        return now >= self.paused_until and self.breaker.permits(now)

    @property
    def is_open(self) -> bool:
        """Whether the breaker is open, so that at most one probe at a time may start."""
        return self.breaker.open_until is not None

    def failed(self, status: int, retry_after_s: float | None, now: float, chance: float, tried_s: float | None = None) -> Verdict:
        """Note a failure; `retry_after_s` is how long the answer asks to wait, `chance` is uniform in [0, 1).

        `tried_s` is how long ago the delivery's attempt before this one began, None if this was its first.
        """
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
        counts = self.is_open or tried_s is None or now - tried_s >= self.succeeded_at
        opens = counts and self.breaker.failed(now, chance)
        return Verdict(gone, opens, pauses and now < self.paused_until)

    def succeeded(self, now: float) -> None:
        """Note a success."""
        self.pauses = 0
        self.failing.succeeded()
        self.succeeded_at = now
        self.breaker.succeeded(now)

    def blocked_until(self, now: float) -> float | None:
        """Return when to check again whether an attempt may start; None if only an answer decides that, or if one may start now."""
        waits = [when for when in (self.breaker.open_until, self.breaker.rest_until, self.paused_until) if when is not None and when > now]
        return max(waits, default=None)

    @property
    def expires_at(self) -> float | None:
        """When this record makes no difference any more; None if that depends on an answer."""
        if self.told_failing_since_ms is not None:
            return None
        at = self.breaker.expires_at
        return None if at is None else max(at, self.paused_until)
