"""Invariants: to whom an event must be routed and may be, by the registry's history; and what a lane's counters must agree with."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from services.delivery.dispatch.lane_table import LaneTable
from services.delivery.dispatch.lifecycle import SETTLED
from services.delivery.ledger.rows import RangeRow
from services.delivery.model import Phase
from services.eventlog.record import Record
from tests.simulation.event_log import time_in
from tests.simulation.registry import DISABLED, Wish


@dataclass
class Version:
    """A subscription from a point in time on; `wish` is None after its deletion."""

    since: float
    wish: Wish | None
    told_at: float = float("inf")
    """When the caller who made this version got the answer that it holds."""
    started_by: float = float("inf")
    """Of the first version, if it has a start in the past: when all past events were certainly handed out."""


@dataclass
class Published:
    """An event, when it was published, and the first time at which it was certainly routed."""

    record: Record
    at: float
    routed_by: float | None = None
    owed_to: dict[str, float] = field(default_factory=dict)
    """To which subscriptions it was owed once it was routed, and until when; infinity while it is."""
    dropped_at: float = float("inf")
    """When the log dropped it."""
    dropped_for: set[str] = field(default_factory=set)
    """The subscriptions that came so late that the log had dropped it before their start was in the ledger."""


def note_owed(published: list[Published], ranges: Sequence[RangeRow], now: float) -> None:
    """Note which routed events lie in owed ranges, and which do so no more."""
    spans: dict[str, list[tuple[int, float]]] = {}
    for row in ranges:
        spans.setdefault(row.subscription_id, []).append((row.at[0], row.until[0] if row.until else float("inf")))
    for event in published:
        if event.routed_by is None:
            continue
        position = event.record.position
        owed = {id_ for id_, parts in spans.items() if any(at < position <= until for at, until in parts)}
        for id_ in owed:
            event.owed_to.setdefault(id_, float("inf"))
        for id_, until in event.owed_to.items():
            if until == float("inf") and id_ not in owed:
                event.owed_to[id_] = now


def judged(event: Published, versions: list[Version], subscription_id: str = "") -> tuple[bool, bool]:
    """Return whether an event must be routed to a subscription, and whether it may be.

    The versions count that held until it was routed, or until it was handed out if it was owed. A start in the past makes it count for a
    subscription that is younger than the event.
    """
    assert event.routed_by is not None
    created = versions[0]
    start_ms = None if created.wish is None else created.wish.start_ms
    routed_by = max(event.routed_by, event.owed_to.get(subscription_id, 0.0))
    if start_ms is not None and time_in(event.record.event_id) >= start_ms:
        # An event from before the creation counts as if it were accepted then.
        matches = _matches_between(event.record, versions, max(event.at, created.since), max(routed_by, created.started_by))
        is_held = event.dropped_at > created.since and subscription_id not in event.dropped_for
        return bool(matches) and all(matches) and is_held, any(matches)
    matches = _matches_between(event.record, versions, event.at, routed_by)
    return created.told_at <= event.at and bool(matches) and all(matches), any(matches)


def _matches_between(record: Record, versions: list[Version], begin: float, end: float) -> list[bool]:
    """Return whether a record matches, for each version that held at any time between `begin` and `end`.

    A change certainly holds once its caller has the answer.
    """
    spans = zip(versions, [*versions[1:], Version(float("inf"), None)], strict=True)
    seen = [version.wish for version, following in spans if following.told_at >= begin and version.since <= end]
    return [wish is not None and _matches(wish, record) for wish in seen]


def _matches(wish: Wish, record: Record) -> bool:
    return (
        wish.state != DISABLED
        and record.audience in {"", wish.consumer_id}
        and wish.source in {"", record.source}
        and (not wish.types or any(_meets(record.type, pattern) for pattern in wish.types))
    )


def _meets(event_type: str, pattern: str) -> bool:
    return pattern in {"*", event_type} or (pattern.endswith(".*") and event_type.startswith(pattern[:-1]))


def check_phases(lanes: LaneTable) -> None:
    """Check that the queues and counters of all lanes agree with the phases of the deliveries in memory."""
    unrecorded_sent = held_bytes = 0
    for consumer in {id(lane.consumer): lane.consumer for lane in lanes}.values():
        handed = sum(len(owed.handed) for lane in lanes if lane.consumer is consumer for owed in lane.ranges)
        unrecorded = sum(delivery.sent_at is not None for lane in lanes if lane.consumer is consumer for delivery in lane.held)
        assert consumer.unrecorded == unrecorded, f"{consumer.id} has {unrecorded} unrecorded attempts, and not {consumer.unrecorded}"
        assert consumer.handed == handed, f"{consumer.id} has {handed} deliveries from ranges, and not {consumer.handed}"
    for lane in lanes:
        held = list(lane.held)
        phases = Counter(delivery.phase for delivery in held)
        waiting = [*lane.queue, *lane.joined, *([] if lane.order is None else lane.order.waiting_deliveries())]
        assert {delivery.phase for delivery in waiting} <= {Phase.QUEUED}, f"{lane.subscription_id}: {phases}"
        assert (phases[Phase.QUEUED], phases[Phase.IN_FLIGHT]) == (len(waiting), lane.in_flight), f"{lane.subscription_id}: {phases}"
        assert phases[Phase.RELEASED] == 0, f"{lane.subscription_id} holds a released delivery"
        assert phases[Phase.SPILLED] <= lane.unflushed_spills, f"{lane.subscription_id}: {phases}"
        lost = [delivery for delivery in held if delivery.chunk is not None and delivery not in delivery.chunk.deliveries]
        assert not lost, f"{lane.subscription_id} holds deliveries that their chunk has lost: {lost}"
        for chunk in {id(delivery.chunk): delivery.chunk for delivery in held if delivery.chunk is not None}.values():
            gone = SETTLED | {Phase.RELEASED}  # released: it is let go
            assert chunk.unsettled == sum(delivery.phase not in gone for delivery in chunk.deliveries), chunk
        unrecorded_sent += sum(delivery.sent_at is not None for delivery in held)
        held_bytes += sum(delivery.size_bytes for delivery in held)
    counted = (lanes.unrecorded_sent, lanes.held_bytes)
    assert counted == (unrecorded_sent, held_bytes), (
        f"attempts not recorded and bytes held are {(unrecorded_sent, held_bytes)}, not {counted}"
    )
