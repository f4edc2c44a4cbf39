"""Keys: create, read, authenticate and revoke API keys.

access_server → [keys] → consumers, database

Law: a key's clear text exists only in the answer to the call that creates the key; the database stores a keyed hash.
"""

import hmac
from collections.abc import Sequence

import sqlalchemy as sa

from services.runtime import api_key
from services.runtime.ids import new_id
from services.subscription.errors import key_not_found
from services.subscription.model import Key, KeyId, Role
from services.subscription.rules.validation import KeyDraft
from services.subscription.store import consumers
from services.subscription.store.schema import keys
from services.subscription.store.transaction import Reading, Row, Writing
from services.subscription.store.vault import KeyHash

_LOOKUP_BYTES = 8
_KEY_COLUMNS = (keys.c.id, keys.c.role, keys.c.consumer_id, keys.c.name, keys.c.hint, keys.c.expire_ms, keys.c.create_ms)


def create(writing: Writing, draft: KeyDraft) -> tuple[Key, str]:
    """Create a key from a valid draft; return the key and its clear text. Raises CONSUMER_NOT_FOUND."""
    assert draft.role is not None  # noqa: S101 - refused before
    owner = consumers.get(writing, draft.consumer_id).id if draft.consumer_id else None
    clear = api_key.new_key()
    created = Key(KeyId(new_id("key")), draft.role, owner, draft.name, api_key.hint(clear), draft.expire_ms, writing.now_ms)
    hashed = writing.vault.hash_key(clear)
    writing.connection.execute(
        keys.insert().values(
            id=created.id,
            role=created.role.value,
            consumer_id=created.consumer_id,
            name=created.name,
            hint=created.hint,
            secret_key_id=hashed.secret_key_id,
            lookup=hashed.digest[:_LOOKUP_BYTES],
            digest=hashed.digest,
            expire_ms=created.expire_ms,
            revoke_ms=None,
            create_ms=created.create_ms,
        )
    )
    return created, clear


def get(reading: Reading, key_id: str) -> Key:
    """Return a key that is not revoked; raises KEY_NOT_FOUND."""
    query = sa.select(*_KEY_COLUMNS).where(keys.c.id == key_id, keys.c.revoke_ms.is_(None))
    row = reading.connection.execute(query).one_or_none()
    if row is None:
        raise key_not_found()
    return _key(row)


def page(reading: Reading, after_id: str, size: int) -> tuple[list[Key], bool]:
    """Return up to `size` keys that are not revoked and whose ids follow `after_id`, and whether there are more."""
    query = sa.select(*_KEY_COLUMNS).where(keys.c.id > after_id, keys.c.revoke_ms.is_(None)).order_by(keys.c.id).limit(size + 1)
    found = [_key(row) for row in reading.connection.execute(query)]
    return found[:size], len(found) > size


def revoke(writing: Writing, key_id: str) -> None:
    """Revoke a key for good; raises KEY_NOT_FOUND."""
    get(writing, key_id)
    writing.connection.execute(keys.update().where(keys.c.id == key_id).values(revoke_ms=writing.now_ms))


def was_any_created(reading: Reading) -> bool:
    """Return whether any key was ever created."""
    return reading.connection.execute(sa.select(keys.c.id).limit(1)).one_or_none() is not None


def authenticate(reading: Reading, clears: Sequence[str]) -> list[Key | None]:
    """Return the keys of clear texts, in order; None for a key that is malformed, unknown, expired or revoked."""
    wanted: dict[bytes, list[tuple[KeyHash, str]]] = {}
    for clear in clears:
        if api_key.parse_key(clear) is not None:
            for hashed in reading.vault.key_hashes(clear):
                wanted.setdefault(hashed.digest[:_LOOKUP_BYTES], []).append((hashed, clear))
    found: dict[str, Key] = {}
    query = sa.select(*_KEY_COLUMNS, keys.c.revoke_ms, keys.c.lookup, keys.c.secret_key_id, keys.c.digest).where(
        keys.c.lookup.in_(list(wanted))
    )
    for row in reading.connection.execute(query) if wanted else ():
        holds = row.revoke_ms is None and (row.expire_ms is None or row.expire_ms > reading.now_ms)
        for hashed, clear in wanted[row.lookup]:
            if hmac.compare_digest(hashed.digest, row.digest) and hashed.secret_key_id == row.secret_key_id and holds:
                found[clear] = _key(row)
    return [found.get(clear) for clear in clears]


def _key(row: Row) -> Key:
    return Key(row.id, Role(row.role), row.consumer_id, row.name, row.hint, row.expire_ms, row.create_ms)
