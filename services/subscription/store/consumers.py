"""Consumers: create, read, pause and resume consumers.

access_server, keys → [consumers] → database
"""

import dataclasses

import sqlalchemy as sa

from services.runtime.ids import new_id
from services.subscription.errors import consumer_not_found
from services.subscription.model import Consumer, ConsumerId, Pause
from services.subscription.store import changes as store_changes
from services.subscription.store.rows import pause_column, pause_from
from services.subscription.store.schema import consumers
from services.subscription.store.transaction import Reading, Row, Writing


def create(writing: Writing, name: str) -> Consumer:
    """Create a consumer with a valid name; several consumers may have the same name."""
    created = Consumer(ConsumerId(new_id("con")), name, writing.now_ms)
    row = {"id": created.id, "name": created.name, "create_ms": created.create_ms, "subscriptions_created": 0, "pause": None}
    writing.connection.execute(consumers.insert().values(row))
    return created


def next_turn(writing: Writing, consumer_id: str) -> int:
    """Count one more subscription of a consumer; return how many it had created before. Raises CONSUMER_NOT_FOUND."""
    created = consumers.c.subscriptions_created
    counted = consumers.update().where(consumers.c.id == consumer_id).values(subscriptions_created=created + 1).returning(created)
    row = writing.connection.execute(counted).one_or_none()
    if row is None:
        raise consumer_not_found()
    count: int = row.subscriptions_created
    return count - 1


def get(reading: Reading, consumer_id: str) -> Consumer:
    """Return a consumer; raises CONSUMER_NOT_FOUND."""
    row = reading.connection.execute(sa.select(consumers).where(consumers.c.id == consumer_id)).one_or_none()
    if row is None:
        raise consumer_not_found()
    return _consumer(row)


def pause(writing: Writing, consumer_id: str, new: Pause) -> Consumer:
    """Pause a consumer's subscriptions; a paused consumer stays as it is. Raises CONSUMER_NOT_FOUND."""
    current = get(writing, consumer_id)
    return current if current.pause else _put_pause(writing, current, new)


def resume(writing: Writing, consumer_id: str) -> Consumer:
    """End a consumer's pause, if it is paused. Raises CONSUMER_NOT_FOUND."""
    current = get(writing, consumer_id)
    return _put_pause(writing, current, None) if current.pause else current


def _put_pause(writing: Writing, current: Consumer, pause: Pause | None) -> Consumer:
    """Store a consumer's pause; this is one change, however many subscriptions it has."""
    writing.connection.execute(consumers.update().where(consumers.c.id == current.id).values(pause=pause_column(pause)))
    store_changes.record(writing, store_changes.ChangeKind.CONSUMER, current.id)
    return dataclasses.replace(current, pause=pause)


def page(reading: Reading, after_id: str, size: int) -> tuple[list[Consumer], bool]:
    """Return up to `size` consumers whose ids follow `after_id`, and whether there are more."""
    query = sa.select(consumers).where(consumers.c.id > after_id).order_by(consumers.c.id).limit(size + 1)
    found = [_consumer(row) for row in reading.connection.execute(query)]
    return found[:size], len(found) > size


def _consumer(row: Row) -> Consumer:
    return Consumer(row.id, row.name, row.create_ms, pause_from(row.pause))
