"""Rows: convert deliveries, attempts and events to their stored form, and back.

recorder → [rows] → sqlite → [rows] → lane_refill, server
"""

from typing import NamedTuple

import orjson

from services.delivery.model import Attempt, ContentMode, Delivery, Event, State
from services.eventlog.record import Record
from services.runtime.ids import slot_of


class OpenRow(NamedTuple):
    """An unfinished delivery."""

    id: bytes
    event_id: str
    shard: int
    partition: int
    position: int
    subscription_id: str
    consumer_id: str
    event_type: str
    accepted_ms: int
    revision: int
    body_mode: str
    encoder: int
    attempt_count: int
    attempts: bytes
    last_status: int
    due_ms: int
    job_id: str
    order_key: bytes
    slot: int
    failed_sink: int


class DoneRow(NamedTuple):
    """A finished delivery."""

    id: bytes
    event_id: str
    shard: int
    partition: int
    position: int
    subscription_id: str
    consumer_id: str
    event_type: str
    accepted_ms: int
    revision: int
    state: int
    attempt_count: int
    attempts: bytes
    last_status: int
    finished_ms: int
    job_id: str


class DueNow(NamedTuple):
    """A subscription whose unfinished deliveries need not wait any longer."""

    subscription_id: str
    due_ms: int
    """When those are due that would be due later, in ms by the due clock."""
    present_sink: int = 0
    """The fingerprint of its present sink: deliveries that have failed there keep their times; 0: no delivery does."""


class WaitingRow(NamedTuple):
    """What an ordered lane must know of an unfinished delivery's row."""

    id: bytes
    order_key: bytes
    position: int
    due_ms: int


Positions = tuple[int, ...]
"""A place in the log without event ids: one position for each append shard, in the order of shards."""


class RangeRow(NamedTuple):
    """An owed range: the events above `at`, up to `until`, that have no row of this subscription and job yet."""

    subscription_id: str
    job_id: str
    """Empty: the subscription's own events; else its start in the past or a replay."""
    seq: int
    """Tells apart the ranges of one job."""
    at: Positions
    """It only grows."""
    until: Positions | None
    """None: without end, because routing passes the lane by. Once set, it stays."""
    opened_ms: int
    consumer_id: str = ""
    """The subscription's owner, who may be told of the range after the subscription is deleted."""

    @property
    def key(self) -> "RangeKey":
        """The row's key."""
        return RangeKey(self.subscription_id, self.job_id, self.seq)


class RangeKey(NamedTuple):
    """The key of an owed range."""

    subscription_id: str
    job_id: str
    seq: int


class JobRow(NamedTuple):
    """The progress of a replay, or of a start in the past, over the events above `after`, up to `through`."""

    subscription_id: str
    job_id: str
    state: str
    after: Positions
    through: Positions | None
    """None: without end."""
    handed: int
    """How many deliveries it has handed out."""
    finished: int
    """How many of them are delivered."""
    failed: int
    """How many of them are exhausted or cancelled."""


class JobKey(NamedTuple):
    """The key of a job."""

    subscription_id: str
    job_id: str


class EndedRow(NamedTuple):
    """Events above `after`, up to `through`, whose deliveries have ended without a row of their own."""

    subscription_id: str
    job_id: str
    reason: State
    """CANCELLED or EXHAUSTED."""
    after: Positions
    through: Positions
    about: int
    """An estimate of the number of deliveries."""
    time_ms: int
    """When they ended, or the last of them, in ms since 1970."""
    consumer_id: str = ""
    """The subscription's owner."""


class LaneRow(NamedTuple):
    """What a lane must not forget at a restart."""

    subscription_id: str
    sink: int
    """The fingerprint of the sink to which the rest applies, as `sink_fingerprint` returns it."""
    opens_until_ms: int
    """Until when its circuit breaker stays open; 0: it is closed."""
    breaker_level: int
    """How often the breaker has opened again without a success in between."""
    retry_after_ms: int
    """Until when the sink asked to wait; 0: it did not."""
    failures: int
    """How many attempts have failed in a row."""
    failing_since_ms: int
    """When the first of these failures ended; 0: the last attempt succeeded."""
    granted_rate: float
    """Attempts per second that the sink has granted; 0: it has granted none."""


class SetAsideRow(NamedTuple):
    """An event that is not routed, because routing it has crashed the worker several times."""

    group_id: int
    shard: int
    position: int
    event_id: str
    reason: str
    time_ms: int


class RoutingNote(NamedTuple):
    """What a worker notes of its start, and of the event that it is routing, for the case that routing ends the process."""

    position: int
    through: str
    """Where the cursor of the first shard stood at the start."""
    starts: int
    """How many starts in a row have found the cursor there, and have begun to route; 0 after a stop as told."""
    event_position: int = 0
    event_id: str = ""
    """The event that is being routed with care; empty: no event is."""
    deaths: int = 0
    """How many starts before have ended while they routed this event with care."""


class NoticeRow(NamedTuple):
    """A notice that is to be published."""

    id: str
    """Derived from the transition that it tells of, so that the same transition makes the same notice."""
    consumer_id: str
    notice: bytes
    """The serialized event."""
    created_ms: int


OPEN_COLUMNS = OpenRow._fields
DONE_COLUMNS = DoneRow._fields


def open_row(delivery: Delivery) -> OpenRow:
    """Return the row of an unfinished delivery."""
    attempts = delivery.attempts
    return OpenRow(
        delivery.id,
        delivery.event_id,
        delivery.shard,
        delivery.partition,
        delivery.position,
        delivery.subscription_id,
        delivery.consumer_id,
        delivery.event_type,
        delivery.accepted_ms,
        delivery.revision,
        delivery.body_mode.name.lower(),
        delivery.encoder,
        len(attempts),
        _encode_attempts(attempts),
        attempts[-1].status if attempts else 0,
        delivery.due_ms,
        delivery.job_id,
        delivery.order_key,
        slot_of(delivery.subscription_id),
        delivery.failed_sink,
    )


def done_row(delivery: Delivery) -> DoneRow:
    """Return the row of a finished delivery."""
    attempts = delivery.attempts
    return DoneRow(
        delivery.id,
        delivery.event_id,
        delivery.shard,
        delivery.partition,
        delivery.position,
        delivery.subscription_id,
        delivery.consumer_id,
        delivery.event_type,
        delivery.accepted_ms,
        delivery.revision,
        delivery.state,
        len(attempts),
        _encode_attempts(attempts),
        attempts[-1].status if attempts else 0,
        delivery.finished_ms,
        delivery.job_id,
    )


def delivery_of(row: OpenRow, event: Event | None) -> Delivery:
    """Return the unfinished delivery in a row."""
    return Delivery(
        id=row.id,
        event_id=row.event_id,
        shard=row.shard,
        partition=row.partition,
        position=row.position,
        event_type=row.event_type,
        accepted_ms=row.accepted_ms,
        subscription_id=row.subscription_id,
        consumer_id=row.consumer_id,
        revision=row.revision,
        event=event,
        body_mode=ContentMode[row.body_mode.upper()],
        encoder=row.encoder,
        state=State.PENDING,
        attempts=decode_attempts(row.attempts),
        due_ms=row.due_ms,
        recorded=True,
        job_id=row.job_id,
        order_key=row.order_key,
        failed_sink=row.failed_sink,
    )


def _encode_attempts(attempts: list[Attempt]) -> bytes:
    if len(attempts) == 1 and not attempts[0].error and not attempts[0].body:
        started_ms, duration_ms, outcome, status, _, _ = attempts[0]
        return b'[[%d,%d,%d,%d,"",""]]' % (started_ms, duration_ms, outcome, status)
    return orjson.dumps([tuple(attempt) for attempt in attempts])


def decode_attempts(raw: bytes) -> list[Attempt]:
    """Return the attempts from their stored form."""
    return [
        Attempt(started_ms, duration_ms, outcome, status, error, body)
        for started_ms, duration_ms, outcome, status, error, body in orjson.loads(raw)
    ]


def decode_record(raw: bytes) -> Record:
    """Return an event's record from its stored form; the inverse of `encode_record`."""
    head_size = int.from_bytes(raw[:4], "big")
    shard, partition, position, event_id, type_, source, audience, accepted_ms = orjson.loads(raw[4 : 4 + head_size])
    return Record(shard, partition, position, event_id, type_, source, audience, accepted_ms, raw[4 + head_size :])


def encode_record(record: Record) -> bytes:
    """Return the stored form of an event's record: the head's size (4 bytes, big endian), a JSON head, and the event's bytes unchanged."""
    head = orjson.dumps(record[:-1])
    return len(head).to_bytes(4, "big") + head + record.event
