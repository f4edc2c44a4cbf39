"""Resealing: unseals the values that an older secret key sealed, and seals them with the newest key, some in each transaction.

resealer → [resealing] → vault, database

Law 1: the clear text of a value stays the same. No subscription changes, so watches report nothing.
Law 2: a value that cannot be unsealed stays damaged and is assigned to the newest key, so that the older key is not needed for ever.
Law 3: an expired value is deleted instead.
"""

from collections.abc import Callable
from dataclasses import dataclass

import sqlalchemy as sa

from services.subscription.store import credentials as store_credentials
from services.subscription.store import secret_keys
from services.subscription.store import secrets as store_secrets
from services.subscription.store.idempotency import KEPT_MS, IdempotentCall
from services.subscription.store.rows import credential_from
from services.subscription.store.schema import answers, credential_secrets, key_peppers, keys, signing_secrets, subscriptions
from services.subscription.store.transaction import Row, Writing
from services.subscription.store.vault import Sealed, UnsealError

BATCH = 100
Position = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class _Kind:
    """One table of sealed values: the columns that identify a row, and the context that each value is sealed for."""

    table: sa.Table
    identity: tuple[sa.Column[str] | sa.Column[int], ...]
    rows: sa.Select[tuple[object, ...]]
    place: Callable[[Row], str]
    is_expired: Callable[[Row, int], bool]


@dataclass(frozen=True, slots=True)
class Step:
    """The result of one transaction, and where the next transaction goes on; None after the last row of the last table."""

    resealed: int
    damaged: int
    then: tuple[int, Position] | None


FIRST: tuple[int, Position] = (0, ())


def reseal_some(writing: Writing, at: tuple[int, Position]) -> Step:
    """Reseal up to `BATCH` values after a position."""
    number, after = at
    if number == 0 and not after:
        secret_keys.note_checks(writing.connection, writing.vault)
        _reseal_peppers(writing)
    kind = _KINDS[number]
    column = kind.table.c.secret_key_id
    query = kind.rows.where(column != writing.vault.newest).order_by(*kind.identity).limit(BATCH)
    if after:
        query = query.where(sa.tuple_(*kind.identity) > sa.tuple_(*(sa.literal(part) for part in after)))
    rows = writing.connection.execute(query).all()
    done = [_reseal(writing, kind, row) for row in rows]
    if len(rows) == BATCH:
        then: tuple[int, Position] | None = (number, tuple(getattr(rows[-1], part.name) for part in kind.identity))
    else:
        then = (number + 1, ()) if number + 1 < len(_KINDS) else None
    return Step(done.count(True), done.count(False), then)


def _reseal(writing: Writing, kind: _Kind, row: Row) -> bool | None:
    """Reseal one value; return whether it was unsealed or had expired, and None if its secret key is unknown."""
    here = sa.and_(*(part == getattr(row, part.name) for part in kind.identity))
    if kind.is_expired(row, writing.now_ms):
        writing.connection.execute(kind.table.delete().where(here))
        return True
    if row.secret_key_id not in writing.vault.secret_key_ids:
        return None
    try:
        place = kind.place(row)
        sealed = writing.vault.seal(writing.vault.open(Sealed(row.secret_key_id, row.box), place), place)
    except UnsealError:
        sealed = Sealed(writing.vault.newest, row.box)
        opened = False
    else:
        opened = True
    writing.connection.execute(kind.table.update().where(here).values(secret_key_id=sealed.secret_key_id, box=sealed.box))
    return opened


def _reseal_peppers(writing: Writing) -> None:
    """Store the peppers that API keys were hashed with, sealed with the newest secret key; delete the peppers that no API key needs."""
    vault, connection = writing.vault, writing.connection
    hashed_by = set(connection.execute(sa.select(keys.c.secret_key_id).where(keys.c.revoke_ms.is_(None)).distinct()).scalars())
    connection.execute(key_peppers.delete().where(key_peppers.c.id.not_in(hashed_by)))
    for name in sorted(hashed_by - {vault.newest}):
        pepper = vault.pepper(name)
        if pepper is not None:
            sealed = vault.seal(pepper, secret_keys.pepper_place(name))
            connection.execute(key_peppers.delete().where(key_peppers.c.id == name))
            connection.execute(key_peppers.insert().values(id=name, secret_key_id=sealed.secret_key_id, box=sealed.box))
            vault.keep_pepper(name, pepper)


def _credential_place(row: Row) -> str:
    if row.credential is None:
        raise UnsealError
    return store_credentials.place_of(row.consumer_id, credential_from(row.credential).kind, row.subscription_id)


_KINDS = (
    _Kind(
        table=signing_secrets,
        identity=(signing_secrets.c.subscription_id, signing_secrets.c.number),
        rows=sa.select(signing_secrets),
        place=lambda row: store_secrets.place_of(row.subscription_id),
        is_expired=lambda row, now_ms: row.expire_ms is not None and row.expire_ms <= now_ms,
    ),
    _Kind(
        table=credential_secrets,
        identity=(credential_secrets.c.subscription_id,),
        rows=sa.select(credential_secrets, subscriptions.c.consumer_id, subscriptions.c.credential).join_from(
            credential_secrets, subscriptions, credential_secrets.c.subscription_id == subscriptions.c.id
        ),
        place=_credential_place,
        is_expired=lambda _row, _now_ms: False,
    ),
    _Kind(
        table=answers,
        identity=(answers.c.scope, answers.c.method, answers.c.request_id),
        rows=sa.select(answers),
        place=lambda row: IdempotentCall(row.scope, row.method, row.request_id, b"").place,
        is_expired=lambda row, now_ms: row.create_ms <= now_ms - KEPT_MS,
    ),
)
