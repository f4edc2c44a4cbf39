"""Catalogue: the event types. Watches do not report them.

catalogue_server → [catalogue] → database
"""

from collections.abc import Collection

import sqlalchemy as sa

from services.subscription.errors import etag_mismatch, event_type_not_found
from services.subscription.model import EventType
from services.subscription.store.schema import event_types, registry
from services.subscription.store.transaction import Reading, Writing


def get(reading: Reading, name: str) -> EventType:
    """Return an event type; raises EVENT_TYPE_NOT_FOUND."""
    found = _find(reading, name)
    if found is None:
        raise event_type_not_found()
    return found


def page(reading: Reading, after_name: str, size: int) -> tuple[list[EventType], bool]:
    """Return up to `size` event types whose names follow `after_name`, and whether there are more."""
    query = sa.select(event_types).where(event_types.c.name > after_name).order_by(event_types.c.name).limit(size + 1)
    found = [EventType(*row) for row in reading.connection.execute(query)]
    return found[:size], len(found) > size


def audience_required(reading: Reading, names: Collection[str]) -> list[str]:
    """Return those of `names` whose events must name an audience, each once, in no particular order."""
    query = sa.select(event_types.c.name).where(event_types.c.name.in_(names), event_types.c.audience_required)
    return list(reading.connection.execute(query).scalars())


def put(writing: Writing, name: str, description: str, *, audience_required: bool, etag: str) -> tuple[EventType, bool]:
    """Write a valid event type; return it, and whether it is new. Raises ETAG_MISMATCH if `etag` is not that of the present state."""
    current = _find(writing, name)
    _check_etag(current, etag)
    version = writing.connection.execute(
        registry.update().values(catalogue_version=registry.c.catalogue_version + 1).returning(registry.c.catalogue_version)
    ).scalar_one()
    create_ms = writing.now_ms if current is None else current.create_ms
    written = EventType(name, description, audience_required, create_ms, writing.now_ms, version)
    writing.connection.execute(event_types.delete().where(event_types.c.name == name))
    writing.connection.execute(
        event_types.insert().values(
            name=name,
            description=description,
            audience_required=audience_required,
            create_ms=create_ms,
            update_ms=writing.now_ms,
            version=version,
        )
    )
    return written, current is None


def delete(writing: Writing, name: str, etag: str) -> None:
    """Delete an event type. Raises EVENT_TYPE_NOT_FOUND, or ETAG_MISMATCH if `etag` is not that of the present state."""
    _check_etag(get(writing, name), etag)
    writing.connection.execute(event_types.delete().where(event_types.c.name == name))


def _find(reading: Reading, name: str) -> EventType | None:
    row = reading.connection.execute(sa.select(event_types).where(event_types.c.name == name)).one_or_none()
    return None if row is None else EventType(*row)


def _check_etag(current: EventType | None, etag: str) -> None:
    if etag and (current is None or etag != current.etag):
        raise etag_mismatch()
