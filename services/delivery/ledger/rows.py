"""Rows: convert deliveries, attempts and events to their stored form, and back.

recorder → [rows] → sqlite → [rows] → lane_refill, server
"""

from typing import NamedTuple

import orjson

from services.delivery.model import Attempt, ContentMode, Delivery, Event, State
from services.eventlog.record import Record


class OpenRow(NamedTuple):
    """An unfinished delivery."""

    id: bytes
    event_id: str
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


class DoneRow(NamedTuple):
    """A finished delivery."""

    id: bytes
    event_id: str
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


OPEN_COLUMNS = OpenRow._fields
DONE_COLUMNS = DoneRow._fields


def open_row(delivery: Delivery) -> OpenRow:
    """Return the row of an unfinished delivery."""
    attempts = delivery.attempts
    return OpenRow(
        delivery.id,
        delivery.event_id,
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
    )


def done_row(delivery: Delivery) -> DoneRow:
    """Return the row of a finished delivery."""
    attempts = delivery.attempts
    return DoneRow(
        delivery.id,
        delivery.event_id,
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
    )


def delivery_of(row: OpenRow, event: Event | None) -> Delivery:
    """Return the unfinished delivery in a row."""
    return Delivery(
        id=row.id,
        event_id=row.event_id,
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
    partition, position, event_id, type_, source, audience, accepted_ms = orjson.loads(raw[4 : 4 + head_size])
    return Record(partition, position, event_id, type_, source, audience, accepted_ms, raw[4 + head_size :])


def encode_record(record: Record) -> bytes:
    """Return the stored form of an event's record: the head's size (4 bytes, big endian), a JSON head, and the event's bytes unchanged."""
    head = orjson.dumps(record[:-1])
    return len(head).to_bytes(4, "big") + head + record.event
