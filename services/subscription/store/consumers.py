"""Consumers: create and read consumers.

access_server, keys → [consumers] → database
"""

import sqlalchemy as sa

from services.runtime.ids import new_id
from services.subscription.errors import consumer_not_found
from services.subscription.model import Consumer, ConsumerId
from services.subscription.store.schema import consumers
from services.subscription.store.transaction import Reading, Writing


def create(writing: Writing, name: str) -> Consumer:
    """Create a consumer with a valid name; several consumers may have the same name."""
    created = Consumer(ConsumerId(new_id("con")), name, writing.now_ms)
    writing.connection.execute(consumers.insert().values(id=created.id, name=created.name, create_ms=created.create_ms))
    return created


def get(reading: Reading, consumer_id: str) -> Consumer:
    """Return a consumer; raises CONSUMER_NOT_FOUND."""
    row = reading.connection.execute(sa.select(consumers).where(consumers.c.id == consumer_id)).one_or_none()
    if row is None:
        raise consumer_not_found()
    return Consumer(*row)


def page(reading: Reading, after_id: str, size: int) -> tuple[list[Consumer], bool]:
    """Return up to `size` consumers whose ids follow `after_id`, and whether there are more."""
    query = sa.select(consumers).where(consumers.c.id > after_id).order_by(consumers.c.id).limit(size + 1)
    found = [Consumer(*row) for row in reading.connection.execute(query)]
    return found[:size], len(found) > size
