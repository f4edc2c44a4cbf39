"""Consent: decide a subscription's state when its sink changes, consents, refuses or is gone.

subscriptions, verifications → [consent: pause]

Law: pure; every change of a stored subscription's state is decided in this file or in `pause.py`.
"""

import dataclasses
from typing import assert_never

from services.subscription.model import Consent, State, Subscription, Verification, VerificationPolicy
from services.subscription.rules.pause import active_or_paused

NOT_ASKED = "the sink has not yet consented to receive events; run its verification"


def initial_state(policy: VerificationPolicy) -> tuple[State, str]:
    """Return the state of a new subscription, and the reason for it."""
    return (State.UNVERIFIED, NOT_ASKED) if policy is VerificationPolicy.REQUIRED else (State.ACTIVE, "")


def change_sink(current: Subscription, sink: str, policy: VerificationPolicy) -> Subscription:
    """Return a subscription with a new sink; the former sink's verification no longer counts."""
    state, reason = initial_state(policy)
    if state is State.ACTIVE:
        state, reason = active_or_paused(current.pause)
    return dataclasses.replace(current, sink=sink, state=state, state_reason=reason, verification=None)


def disable(current: Subscription, reason: str) -> Subscription:
    """Return a subscription whose sink is gone."""
    return current if current.state is State.DISABLED else dataclasses.replace(current, state=State.DISABLED, state_reason=reason)


def is_wanted(current: Subscription, policy: VerificationPolicy) -> bool:
    """Return whether delivery shall ask the sink for its consent by itself: if the policy is best effort, once, while it is active."""
    return policy is VerificationPolicy.BEST_EFFORT and current.state is State.ACTIVE and current.verification is None


def record_answer(current: Subscription, verification: Verification, policy: VerificationPolicy) -> Subscription:
    """Return a subscription whose sink verification has a result.

    A consent holds until the sink refuses: a later verification that fails changes only the detail.
    """
    before = current.verification
    match verification.consent:
        case Consent.GRANTED:
            waited = current.state is State.UNVERIFIED
            state, reason = active_or_paused(current.pause) if waited else (current.state, current.state_reason)
        case Consent.REFUSED:
            withheld = policy is VerificationPolicy.REQUIRED and current.state is not State.DISABLED
            reason = f"the sink has not consented to receive events: {verification.detail}"
            state, reason = (State.UNVERIFIED, reason) if withheld else (current.state, current.state_reason)
        case Consent.PENDING | Consent.FAILED:
            if before is not None and before.consent is Consent.GRANTED:
                verification = dataclasses.replace(before, detail=verification.detail)
            reason = f"the sink has not yet consented to receive events: {verification.detail}"
            state, reason = current.state, reason if current.state is State.UNVERIFIED else current.state_reason
        case other:
            assert_never(other)
    return dataclasses.replace(current, state=state, state_reason=reason, verification=verification)


def waive(current: Subscription) -> Subscription:
    """Return a subscription that waited for a consent that is no longer required: active, or paused if it was paused before."""
    state, reason = active_or_paused(current.pause)
    return dataclasses.replace(current, state=state, state_reason=reason)
