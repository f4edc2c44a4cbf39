"""Invariants: what must hold after a campaign, whatever happened during it.

I1 each acknowledged event and matching subscription have exactly one terminal state, and it was accepted · I2 id and body never change ·
I3 nothing is sent again after a 2xx, except around a crash or an unknown outcome · I4 terminal states stay · I5 no attempt before
its time · I6 nothing crosses consumers · I7 every signature verifies · I8 nothing is left pending · I9 a delivery service that started
during a pause makes no attempt before the pause ends. `checking_receiver.py` checks I2, I6 and I7.
"""

import itertools
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from hooktide.delivery.v1 import delivery_pb2 as pb

from tests.torture.checking_receiver import Seen, Witness
from tests.torture.planned_events import PlannedEvent

JITTER = 0.5
# The tolerance: an answer is recorded a moment before it is sent, and a kill a moment after it happened.
_SLACK_S = 0.25
_MS = 0.001


@dataclass(slots=True)
class Emitted:
    """An acknowledged event; times are by the monotonic clock."""

    event: PlannedEvent
    event_id: str
    began_at: float
    acknowledged_at: float


@dataclass(slots=True)
class Subscribed:
    """A subscription over time."""

    witness: Witness
    id: str = ""
    since: float = 0.0
    """When its creation was answered; 0 if it starts with the beginning of the log."""
    closing: float = float("inf")
    """When its deletion was first asked for."""
    until: float = float("inf")
    """When its deletion was answered."""


@dataclass(slots=True)
class Cut:
    """A time in which connections to some endpoints were cut, so that answers may be lost."""

    start: float
    end: float
    endpoints: frozenset[str]


@dataclass(frozen=True, slots=True)
class Pause:
    """A pause of some endpoints' subscriptions."""

    answered_at: float
    resumed_at: float
    """When its end was first asked for."""
    endpoints: frozenset[str]


@dataclass(slots=True)
class Course:
    """The record of a campaign."""

    delays_s: Sequence[float]
    emitted: dict[str, Emitted] = field(default_factory=dict)
    """The acknowledged events, by event id."""
    unacknowledged: set[str] = field(default_factory=set)
    """The emitters' own ids of the events that were tried and not acknowledged."""
    subscribed: list[Subscribed] = field(default_factory=list)
    delivery_ends: list[float] = field(default_factory=list)
    """When delivery was killed, and when it was started again."""
    delivery_starts: list[float] = field(default_factory=list)
    """When delivery was started again."""
    cuts: list[Cut] = field(default_factory=list)
    pauses: list[Pause] = field(default_factory=list)
    finished: dict[tuple[str, str], int] = field(default_factory=dict)
    """The state of each finished delivery as it was first seen, by event and subscription."""


def note_finished(course: Course, deliveries: Iterable[pb.Delivery]) -> list[str]:
    """Record the states of finished deliveries; return each change of a recorded state (I4)."""
    broken = []
    for delivery in deliveries:
        key = (delivery.event_id, delivery.subscription_id)
        if delivery.state != pb.DELIVERY_STATE_PENDING and course.finished.setdefault(key, delivery.state) != delivery.state:
            broken.append(f"I4: {key} was {course.finished[key]} and is {delivery.state}")
        elif delivery.state == pb.DELIVERY_STATE_PENDING and key in course.finished:
            broken.append(f"I4: {key} was {course.finished[key]} and is pending")
    return broken


def judge_ledger(course: Course, deliveries: Sequence[pb.Delivery]) -> tuple[int, list[str]]:
    """Return how many deliveries were due, and each violation in the ledger (I1, I6, I8)."""
    broken: list[str] = []
    rows: dict[str, dict[str, pb.Delivery]] = {each.id: {} for each in course.subscribed}
    for delivery in deliveries:
        of_subscription = rows.get(delivery.subscription_id)
        if of_subscription is None:
            broken.append(f"I6: a delivery for the unknown subscription {delivery.subscription_id}")
        elif delivery.event_id in of_subscription:
            broken.append(f"I1: {delivery.event_id} → {delivery.subscription_id} stands in the ledger twice")
        else:
            of_subscription[delivery.event_id] = delivery
        if delivery.state == pb.DELIVERY_STATE_PENDING:
            broken.append(f"I8: {delivery.event_id} → {delivery.subscription_id} is still pending")
    by_time = sorted(course.emitted.values(), key=lambda each: each.began_at)
    due = 0
    for subscribed in course.subscribed:
        first = bisect_right(by_time, subscribed.since, key=lambda each: each.began_at)
        of_subscription = rows[subscribed.id]
        for emitted in by_time[first:]:
            if subscribed.witness.pattern.wants(emitted.event):
                # A deletion may also apply to events that were acknowledged before it and not routed yet.
                due += subscribed.closing == float("inf")
                broken += _judge_due(subscribed, emitted, of_subscription.get(emitted.event_id))
        broken += _judge_rows(course, subscribed, of_subscription)
    return due, broken


def _judge_due(subscribed: Subscribed, emitted: Emitted, delivery: pb.Delivery | None) -> list[str]:
    name = f"{emitted.event_id} ({emitted.event.id}) → {subscribed.witness.name}"
    deleted = subscribed.closing < float("inf")
    if delivery is None:
        return [] if deleted else [f"I1: {name} was never routed"]
    accepted = emitted.event_id in subscribed.witness.accepted()
    match delivery.state:
        case pb.DELIVERY_STATE_DELIVERED:
            return [] if accepted else [f"I1: {name} is called delivered and was never accepted"]
        case pb.DELIVERY_STATE_CANCELLED if deleted:
            return []
        case _:
            return [f"I1: {name} ended as {pb.DeliveryState.Name(delivery.state)}"]


def _judge_rows(course: Course, subscribed: Subscribed, rows: Mapping[str, pb.Delivery]) -> list[str]:
    broken = []
    for event_id in {*rows, *subscribed.witness.seen}:
        emitted = course.emitted.get(event_id)
        event = emitted.event if emitted else subscribed.witness.evidence.events.get(event_id)
        if emitted is None and (event is None or event.id not in course.unacknowledged):
            broken.append(f"I6: {event_id} → {subscribed.witness.name}: nobody has emitted that")
        elif event is not None and not subscribed.witness.pattern.wants(event):
            broken.append(f"I6: {event_id} was routed to {subscribed.witness.name}, which does not want it")
        elif emitted is not None and emitted.began_at > subscribed.until:
            broken.append(f"I6: {event_id} was routed to {subscribed.witness.name}, emitted after its 204")
    return broken


def judge_arrivals(course: Course) -> tuple[int, list[str]]:
    """Return how many events were sent again after a 2xx, and which attempts came again or too early without cause (I3, I5)."""
    repeated, broken = 0, list[str]()
    ends = sorted(course.delivery_ends)
    for subscribed in course.subscribed:
        witness = subscribed.witness
        cuts = [cut for cut in course.cuts if witness.name in cut.endpoints]
        for event_id, attempts in witness.seen.items():
            # The answer to an attempt of a killed process may come after the next process's attempt.
            for before, after in itertools.pairwise(sorted(attempts, key=lambda each: each.began_at)):
                excused = _within(ends, before.began_at - _SLACK_S, after.began_at + _SLACK_S) or any(
                    cut.start - _SLACK_S < before.at < cut.end + _SLACK_S for cut in cuts
                )
                if before.accepted:
                    repeated += 1
                    if not excused:
                        broken.append(f"I3: {event_id} came again to {witness.name}, {after.began_at - before.at:.3f} s after a 2xx")
                elif not excused and after.began_at - before.at < earliest_s(course.delays_s, before) - 5 * _MS:
                    broken.append(f"I5: {event_id} came again to {witness.name} after only {after.began_at - before.at:.3f} s")
    return repeated, broken


def judge_pauses(course: Course) -> tuple[int, list[str]]:
    """Return how many pauses began before a start of delivery and ended after it, and each attempt of that process in them (I9)."""
    judged, broken = 0, list[str]()
    witnesses = {each.witness.name: each.witness for each in course.subscribed}
    for pause in course.pauses:
        # A request of a killed process may be read a moment after the next process has started.
        known_at = min((at + _SLACK_S for at in course.delivery_starts if pause.answered_at < at < pause.resumed_at), default=None)
        if known_at is None:
            continue
        judged += 1
        for name in pause.endpoints:
            for event_id, attempts in witnesses[name].seen.items():
                if any(known_at < each.began_at < pause.resumed_at for each in attempts):
                    broken.append(f"I9: {event_id} came to {name} in a pause from {pause.answered_at:.3f} to {pause.resumed_at:.3f}")
    return judged, broken


def earliest_s(delays_s: Sequence[float], attempt: Seen) -> float:
    """Return the shortest time that the next attempt must wait."""
    return delays_s[min(attempt.attempt, len(delays_s)) - 1] * (1 - JITTER)


def judge_attempts(course: Course, delivery: pb.Delivery) -> list[str]:
    """Return which of a delivery's recorded attempts began too early (I5)."""
    broken = []
    for before, after in itertools.pairwise(delivery.attempts):
        ended_ms = before.start_time.ToMilliseconds() + before.duration.ToMilliseconds()
        waited_s = (after.start_time.ToMilliseconds() - ended_ms) / 1000
        if waited_s < course.delays_s[before.number - 1] * (1 - JITTER) - 5 * _MS:
            broken.append(f"I5: attempt {after.number} of {delivery.id} began {waited_s:.3f} s after the one before")
    return broken


def _within(times: Sequence[float], start: float, end: float) -> bool:
    """Return whether one of some sorted times lies within a span."""
    return bisect_right(times, end) > bisect_right(times, start)
