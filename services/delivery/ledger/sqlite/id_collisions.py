"""Id collisions: a delivery whose id belongs to the row of another delivery gets the next id of its own key.

flush_writer → [id_collisions] → recorder

Law: rows of one table never share an id, and no delivery is left out. `INSERT OR IGNORE` leaves out rows whose id stands already; it counts
fewer rows then, and only then are the standing rows read. Most of them are the same deliveries, which a flush may write again.
"""

import sqlite3
from collections.abc import Callable, Sequence

from services.delivery.errors import LedgerInvariantError
from services.delivery.ledger.protocol import DeliveryKey
from services.delivery.ledger.rows import DoneRow, OpenRow
from services.delivery.ledger.sqlite.inserting import insert

DeliveryId = Callable[[str, str, str, int], bytes]
"""Returns the n-th id of a key: `model.delivery_id`, or a weaker one in a test."""

_READ_MAX = 500
# Ids have 56 bits of a hash, so the first one is free unless the hash is broken.
_IDS_MAX = 200


def insert_renamed(
    connection: sqlite3.Connection, table: str, rows: Sequence[OpenRow] | Sequence[DoneRow], delivery_id: DeliveryId
) -> dict[DeliveryKey, bytes]:
    """Insert those of the rows that were left out for another delivery's sake, each under its smallest free id; return the new ids."""
    renamed: dict[DeliveryKey, bytes] = {}
    standing = _keys(connection, table, [row.id for row in rows])
    for row in rows:
        key = DeliveryKey(row.event_id, row.subscription_id, row.job_id)
        if standing[row.id] == key:
            continue
        new_id, is_free = _smallest_free(connection, table, key, delivery_id)
        if is_free:
            insert(connection, f"INSERT INTO {table} ({', '.join(row._fields)})", len(row), [(new_id, *row[1:])])
        renamed[key] = new_id
    return renamed


def _smallest_free(connection: sqlite3.Connection, table: str, key: DeliveryKey, delivery_id: DeliveryId) -> tuple[bytes, bool]:
    """Return the first id after a key's own that is free or that the key's row has already, and whether it is free."""
    for nth in range(1, _IDS_MAX):
        new_id = delivery_id(*key, nth)
        other = _keys(connection, table, [new_id]).get(new_id)
        if other in {None, key}:
            return new_id, other is None
    message = f"no id is free for the delivery of {key.event_id} to {key.subscription_id} {key.job_id or '-'}: {_IDS_MAX} are taken"
    raise LedgerInvariantError(message)


def _keys(connection: sqlite3.Connection, table: str, ids: Sequence[bytes]) -> dict[bytes, DeliveryKey]:
    """Return the keys of the deliveries whose rows have these ids, by id."""
    keys: dict[bytes, DeliveryKey] = {}
    for start in range(0, len(ids), _READ_MAX):
        some = ids[start : start + _READ_MAX]
        rows = connection.execute(
            f"SELECT id, event_id, subscription_id, job_id FROM {table} WHERE id IN ({','.join('?' * len(some))})",  # noqa: S608 - ours
            some,
        )
        keys |= {bytes(delivery_id): DeliveryKey(*key) for delivery_id, *key in rows}
    return keys
