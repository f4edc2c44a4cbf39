"""Judging: to whom an event must have been routed, and to whom it may have been, by what the registry held and had told."""

from dataclasses import dataclass

from services.eventlog.record import Record
from tests.simulation.registry import DISABLED, Wish


@dataclass
class Version:
    """A subscription from some time on; `wish` is None once it is deleted."""

    since: float
    wish: Wish | None
    told_at: float = float("inf")
    """When whoever has made it so was told that it is."""


@dataclass
class Published:
    """An event, and until when it was surely not routed yet."""

    record: Record
    at: float
    routed_by: float | None = None


def judged(event: Published, versions: list[Version]) -> tuple[bool, bool]:
    """Say whether an event must have been routed to a subscription, and whether it may have been."""
    assert event.routed_by is not None
    # What the registry held while the event was accepted and until it was surely routed; a change holds for sure once it was told.
    spans = zip(versions, [*versions[1:], Version(float("inf"), None)], strict=True)
    seen = [version.wish for version, following in spans if following.told_at >= event.at and version.since <= event.routed_by]
    matches = [wish is not None and _matches(wish, event.record) for wish in seen]
    existed = versions[0].told_at <= event.at
    return existed and bool(matches) and all(matches), any(matches)


def _matches(wish: Wish, record: Record) -> bool:
    return (
        wish.state != DISABLED
        and record.audience in {"", wish.consumer_id}
        and wish.source in {"", record.source}
        and (not wish.types or any(_meets(record.type, pattern) for pattern in wish.types))
    )


def _meets(event_type: str, pattern: str) -> bool:
    return pattern in {"*", event_type} or (pattern.endswith(".*") and event_type.startswith(pattern[:-1]))
