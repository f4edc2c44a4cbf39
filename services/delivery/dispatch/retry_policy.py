"""Retry policy: after a failed attempt, decides whether its delivery is tried again or given up.

sender → dispatcher → [retry_policy] → recorder → ledger

Law 1: pure. Time and chance arrive as arguments.
Law 2: only this file decides whether and when a delivery is tried again after a failure.
"""

import datetime as dt
import email.utils
from collections.abc import Sequence
from dataclasses import dataclass

from services.delivery.request.request_settings import OwnRetryPolicy

JITTER = 0.5
RETRY_AFTER_MAX_S = 6 * 3600
GONE = 410
# Hooktide's own gateway answers this to a webhook of Hooktide's: another attempt would run into the same loop.
LOOP_DETECTED = 508
_THROTTLING = frozenset({429, 502, 503, 504})
_PAUSE_FIRST_S = 1.0
_PAUSE_MAX_S = 30.0
_NONE = OwnRetryPolicy()


@dataclass(frozen=True, slots=True)
class RetryAt:
    """Try again at a time, in ms by the due clock."""

    due_ms: int


@dataclass(frozen=True, slots=True)
class Exhausted:
    """Make no further attempt; `reason` says why."""

    reason: str


Decision = RetryAt | Exhausted


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how long a delivery is tried."""

    delays_s: Sequence[float]
    """The wait before each attempt after the first, before jitter."""
    expiry_s: float
    """Counted from the event's acceptance; no attempt is due later."""

    def after_failure(
        self,
        *,
        attempts: int,
        accepted_ms: int,
        now_ms: int,
        chance: float,
        status: int = 0,
        retry_after_s: float | None = None,
        own: OwnRetryPolicy = _NONE,
        sink_has_changed: bool = False,
    ) -> Decision:
        """Decide after the attempt number `attempts` has failed.

        `chance` is uniform in [0, 1). `own` is the subscription's own retry policy. `accepted_ms` and `now_ms` are by the due clock.
        If `sink_has_changed`, the attempt was made at a former sink or with a former credential: the next one need not wait.
        """
        delays_s = self.delays_s if own.delays_s is None else own.delays_s
        if status == LOOP_DETECTED:
            return Exhausted("the webhook came back to Hooktide; use a sink that is not an address of this API")
        if status in own.final_statuses:
            return Exhausted(f"the sink answered {status}, which is one of the subscription's final statuses")
        if attempts > len(delays_s) or (own.attempts_max is not None and attempts >= own.attempts_max):
            return Exhausted(f"all {attempts} attempts have failed")
        delay_s = delays_s[attempts - 1] * (1 - JITTER + 2 * JITTER * chance)
        due_ms = now_ms if sink_has_changed else now_ms + int(max(delay_s, retry_after_s or 0.0) * 1000)
        if due_ms > accepted_ms + self.expiry_s * 1000:
            return Exhausted("the delivery reached its expiry time")
        return RetryAt(due_ms)


def retry_after_s(value: str, now_ms: int) -> float | None:
    """Return the seconds in a `Retry-After` header (RFC 9110, section 10.2.3: seconds or a date), at most six hours.

    Returns None if the value is neither, or if it names no later time.
    """
    text = value.strip()
    if text.isascii() and text.isdigit():
        return float(min(int(text[:12]), RETRY_AFTER_MAX_S)) or None
    try:
        when = email.utils.parsedate_to_datetime(text)
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=dt.UTC)
    seconds = when.timestamp() - now_ms / 1000
    return min(seconds, RETRY_AFTER_MAX_S) if seconds > 0 else None


def throttles(status: int) -> bool:
    """Return whether a status asks to send less for a while."""
    return status in _THROTTLING


def pause_s(times: int) -> float:
    """Return for how many seconds to send nothing to a sink that has asked `times` times in a row for a pause of no stated length."""
    return float(min(_PAUSE_FIRST_S * 2 ** min(times - 1, 10), _PAUSE_MAX_S))
