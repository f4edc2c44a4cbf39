"""Consumers: create and read consumers.

access_server, keys → [consumers] → database
"""

import sqlalchemy as sa

from services.runtime.ids import new_id
from services.subscription.errors import consumer_not_found
from services.subscription.model import Consumer, ConsumerId
from services.subscription.store.schema import consumers
from services.subscription.store.transaction import Reading, Row, Writing


def create(writing: Writing, name: str) -> Consumer:
    """Create a consumer with a valid name; several consumers may have the same name."""
    created = Consumer(ConsumerId(new_id("con")), name, writing.now_ms)
    row = {"id": created.id, "name": created.name, "create_ms": created.create_ms, "subscriptions_created": 0}
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


def page(reading: Reading, after_id: str, size: int) -> tuple[list[Consumer], bool]:
    """Return up to `size` consumers whose ids follow `after_id`, and whether there are more."""
    query = sa.select(consumers).where(consumers.c.id > after_id).order_by(consumers.c.id).limit(size + 1)
    found = [_consumer(row) for row in reading.connection.execute(query)]
    return found[:size], len(found) > size


def _consumer(row: Row) -> Consumer:
    return Consumer(row.id, row.name, row.create_ms)
