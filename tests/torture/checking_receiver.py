"""Checking receiver: an endpoint that checks each request as it comes and keeps little, so that a long campaign fits into memory.

It checks at once that the body is the planned event and the same on every attempt, and that the event is for this endpoint. It keeps
when each attempt came and how it was answered. It checks at the end the signatures that came before it knew the secret.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from standardwebhooks import Webhook
from standardwebhooks.webhooks import WebhookVerificationError

from tests.support.webhook_receivers.receiver import Arrival, Endpoint
from tests.torture.planned_events import Pattern, Plan, PlannedEvent

_VIOLATIONS_MAX = 50


class Seen(NamedTuple):
    """One attempt, as its endpoint saw it."""

    began_at: float
    """When the request came, by the monotonic clock."""
    at: float
    """When the endpoint answered."""
    status: int
    attempt: int
    """The attempt number that the header states."""

    @property
    def accepted(self) -> bool:
        """Whether the answer was 2xx."""
        return 200 <= self.status < 300


@dataclass(slots=True)
class Evidence:
    """What all checking endpoints have seen together."""

    plan: Plan
    consumers: Sequence[str]
    events: dict[str, PlannedEvent] = field(default_factory=dict)
    """Each event that arrived anywhere, by the id that the system gave it."""
    ids: dict[str, str] = field(default_factory=dict)
    """The id that the system gave an event, by the emitter's own id."""
    digests: dict[str, bytes] = field(default_factory=dict)
    """A digest of the body, by event id."""
    violations: list[str] = field(default_factory=list)
    accepted: int = 0
    """How many pairs of event and endpoint were accepted, each counted once."""
    arrivals: int = 0

    def violated(self, law: str, what: str) -> None:
        """Record a violation of an invariant."""
        if len(self.violations) < _VIOLATIONS_MAX:
            self.violations.append(f"{law}: {what}")

    def event_of(self, arrival: Arrival) -> PlannedEvent | None:
        """Return the event of an arrival, after comparing its body with the plan and earlier arrivals; None if it is no planned event."""
        digest = hashlib.blake2b(arrival.body, digest_size=16).digest()
        known = self.digests.setdefault(arrival.event_id, digest)
        if known != digest:
            self.violated("I2", f"{arrival.event_id} has two bodies, at {arrival.endpoint}")
        event = self.events.get(arrival.event_id)
        if event is None:
            event = self._planned(arrival)
            if event is not None:
                self.events[arrival.event_id] = event
        return event

    def _planned(self, arrival: Arrival) -> PlannedEvent | None:
        body = json.loads(arrival.body)
        emitter, _, number = str(body.get("id", "")).rpartition("-")
        if not number.isdigit():
            self.violated("I2", f"{arrival.event_id} is no planned event: {arrival.body[:200]!r}")
            return None
        event = self.plan.event(emitter, int(number))
        audience = None if event.audience is None else self.consumers[event.audience]
        wanted = (event.type, event.source, event.subject, event.partitionkey, audience, event.data)
        found = (*(body.get(name) for name in ("type", "source", "subject", "partitionkey", "audience")), body.get("data"))
        if wanted != found:
            self.violated("I2", f"{arrival.event_id} is not as it was emitted: {found} instead of {wanted}")
        if self.ids.setdefault(event.id, arrival.event_id) != arrival.event_id:
            self.violated("I1", f"{event.id} was accepted twice, as {self.ids[event.id]} and {arrival.event_id}")
        return event


@dataclass(slots=True, kw_only=True)
class Witness(Endpoint):
    """An endpoint that checks its arrivals and adds them to the evidence."""

    pattern: Pattern
    evidence: Evidence
    seen: dict[str, list[Seen]] = field(default_factory=dict)
    """The attempts by event id, in the order of their answers."""
    unverified: list[Arrival] = field(default_factory=list)

    def add(self, arrival: Arrival) -> None:
        """Check and record an arrival."""
        evidence = self.evidence
        evidence.arrivals += 1
        event = evidence.event_of(arrival)
        if event is not None and not self.pattern.wants(event):
            evidence.violated("I6", f"{arrival.event_id} ({event}) came to {self.name}, which wants {self.pattern}")
        if not arrival.verified:
            self.unverified.append(arrival)
        attempts = self.seen.setdefault(arrival.event_id, [])
        seen = Seen(arrival.began_at, arrival.at, arrival.status, int(arrival.headers["hooktide-attempt"]))
        if seen.accepted and not any(each.accepted for each in attempts):
            evidence.accepted += 1
            self._accepted.add(arrival.event_id)
        attempts.append(seen)

    def judge_signatures(self) -> None:
        """Check the signatures that came before the secret was known."""
        for arrival in self.unverified:
            if not any(_verifies(secret, arrival) for secret in self.secrets):
                self.evidence.violated("I7", f"the signature of {arrival.event_id} at {self.name} does not verify")
        self.unverified.clear()


def _verifies(secret: str, arrival: Arrival) -> bool:
    try:
        Webhook(secret).verify(arrival.body, arrival.headers)
    except WebhookVerificationError:
        return False
    return True
