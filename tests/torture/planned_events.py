"""Plan: derives from a seed the events and the subscriptions of a campaign, and decides which event is due to which subscription.

Pure. An emitter's name and a number identify an event. So a restarted emitter and the test that checks the result
make the same event of them.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field

TYPES = ("order.created", "order.paid", "order.item.added", "orders.closed", "invoice.sent", "invoice.paid", "user.joined")
SOURCES = ("/shop", "/bank")
CONSUMERS = 3
_AUDIENCE_SHARE = 0.25
_KEYED_SHARE = 0.3
_SUBJECT_SHARE = 0.3


@dataclass(frozen=True, slots=True)
class PlannedEvent:
    """An event that an emitter emits."""

    type: str
    source: str
    id: str
    audience: int | None
    """The index of the consumer that the event is for; None: for all."""
    subject: str | None
    partitionkey: str | None
    data: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Pattern:
    """The events that a subscription asks for."""

    consumer: int
    types: tuple[str, ...] = ()
    source: str = ""

    def wants(self, event: PlannedEvent) -> bool:
        """Return whether an event is for this subscription, by the documented rules."""
        return (
            event.audience in {None, self.consumer}
            and self.source in {"", event.source}
            and (not self.types or any(_meets(event.type, each) for each in self.types))
        )


PATTERNS = (
    Pattern(0),
    Pattern(0, ("order.created",)),
    Pattern(0, ("order.*",), "/shop"),
    Pattern(1, ("*",), "/bank"),
    Pattern(1, ("order.*", "order.created")),
    Pattern(1, ("invoice.sent", "user.*")),
    Pattern(2, ("order.item.*",)),
    Pattern(2, ("user.joined", "invoice.paid")),
    Pattern(2, ("nothing.*",)),
)


def _meets(event_type: str, pattern: str) -> bool:
    if pattern == "*":
        return True
    if pattern.endswith(".*"):
        return event_type.startswith(pattern[:-1]) and len(event_type) > len(pattern) - 1
    return event_type == pattern


@dataclass(frozen=True, slots=True)
class Plan:
    """All possible events of a seed."""

    seed: int
    padding: str = field(default="x" * 120)

    def event(self, emitter: str, number: int) -> PlannedEvent:
        """Return the event of an emitter and a number."""
        rng = random.Random(f"{self.seed}/{emitter}/{number}")
        subject = f"subject-{rng.randrange(40)}" if rng.random() < _SUBJECT_SHARE else None
        return PlannedEvent(
            type=rng.choice(TYPES),
            source=rng.choice(SOURCES),
            id=f"{emitter}-{number}",
            audience=rng.randrange(CONSUMERS) if rng.random() < _AUDIENCE_SHARE else None,
            subject=subject,
            partitionkey=f"key-{rng.randrange(20)}" if rng.random() < _KEYED_SHARE else None,
            data={"emitter": emitter, "number": number, "word": rng.choice(("ä", "\u2028", '"', "\\")), "padding": self.padding},
        )
