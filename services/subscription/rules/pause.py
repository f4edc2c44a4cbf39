"""Pause: decide a subscription's state when it is paused, resumed or enabled again, and word the reason.

subscriptions, consent → [pause]

Law: pure. A pause stays until it is resumed, also while the subscription is disabled or waits for its sink's consent.
"""

import dataclasses
import datetime as dt

from services.subscription.errors import nothing_to_pause, unverified
from services.subscription.model import OPERATOR, Consent, Pause, State, Subscription, VerificationPolicy

# The last millisecond of the year 9999, which is the last one of a protobuf Timestamp.
_TIME_MS_MAX = 253_402_300_799_999


def new_pause(by: str, now_ms: int, kept_ms: int) -> Pause:
    """Return a pause that begins now; `kept_ms` is how long an event is kept after its acceptance."""
    return Pause(now_ms, by, min(now_ms + kept_ms, _TIME_MS_MAX))


def active_or_paused(pause: Pause | None) -> tuple[State, str]:
    """Return the state of a subscription that may get events, and the reason for it."""
    return (State.ACTIVE, "") if pause is None else (State.PAUSED, f"paused by {pause.by} {_since(pause)}")


def shown_reason(subscription: Subscription) -> str:
    """Return the reason for a subscription's state, and that its consumer is paused if events wait for that reason."""
    pause = subscription.consumer_pause
    if pause is None or subscription.state not in {State.ACTIVE, State.PAUSED}:
        return subscription.state_reason
    consumer = f"its consumer is paused by {OPERATOR} {_since(pause)}"
    return f"{subscription.state_reason}; {consumer}" if subscription.state_reason else consumer


def paused(current: Subscription, pause: Pause) -> Subscription:
    """Return a subscription that is paused; raises STATE_CONFLICT if it gets no events anyway."""
    match current.state:
        case State.PAUSED:
            return current
        case State.ACTIVE:
            state, reason = active_or_paused(pause)
            return dataclasses.replace(current, state=state, state_reason=reason, pause=pause)
        case State.DISABLED:
            raise nothing_to_pause()
        case State.UNVERIFIED:
            raise unverified()


def resumed(current: Subscription, policy: VerificationPolicy, not_asked: str) -> Subscription:
    """Return a subscription without its pause. One that is disabled is enabled again, with the consent that its sink has given.

    `not_asked` is the reason for the state of one that needs a consent first. Raises STATE_CONFLICT if it waits for a consent only.
    """
    match current.state:
        case State.ACTIVE | State.PAUSED:
            return current if current.pause is None else dataclasses.replace(current, state=State.ACTIVE, state_reason="", pause=None)
        case State.DISABLED:
            granted = current.verification is not None and current.verification.consent is Consent.GRANTED
            needs_consent = policy is VerificationPolicy.REQUIRED and not granted
            state, reason = (State.UNVERIFIED, not_asked) if needs_consent else (State.ACTIVE, "")
            return dataclasses.replace(current, state=state, state_reason=reason, pause=None)
        case State.UNVERIFIED:
            if current.pause is None:
                raise unverified()
            return dataclasses.replace(current, pause=None)


def _since(pause: Pause) -> str:
    return f"since {_time(pause.time_ms)}; events accepted since then are kept at least until {_time(pause.kept_until_ms)}"


def _time(time_ms: int) -> str:
    return dt.datetime.fromtimestamp(time_ms // 1000, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
