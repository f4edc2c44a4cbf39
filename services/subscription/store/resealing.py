"""Resealing: unseals the values that an older secret key sealed, and seals them with the newest key, some in each transaction.

resealer → [resealing] → vault, database

Law 1: the clear text of a value stays the same. No subscription changes, so watches report nothing.
Law 2: a value that cannot be unsealed stays damaged and is assigned to the newest key, so that the older key is not needed for ever.
Law 3: an expired value is deleted instead.
"""

from collections.abc import Callable
from dataclasses import dataclass

import sqlalchemy as sa

from services.subscription.model import IdempotentCall
from services.subscription.store import credentials as store_credentials
from services.subscription.store import secret_keys
from services.subscription.store import secrets as store_secrets
from services.subscription.store.idempotency import KEPT_MS
from services.subscription.store.rows import credential_from
from services.subscription.store.schema import answers, credential_secrets, key_peppers, keys, signing_secrets, subscriptions
from services.subscription.store.transaction import Row, Writing
from services.subscription.store.vault import Sealed, UnsealError

BATCH = 100
Position = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class _SealedTable:
    """One table of sealed values: the columns that identify a row, and the context that each value is sealed for."""

    table: sa.Table
    identity: tuple[sa.Column[str] | sa.Column[int], ...]
    rows: sa.Select[tuple[object, ...]]
    seal_context: Callable[[Row], str]
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
        secret_keys.add_checks(writing.connection, writing.vault)
        _reseal_peppers(writing)
    sealed_table = _SEALED_TABLES[number]
    column = sealed_table.table.c.secret_key_id
    query = sealed_table.rows.where(column != writing.vault.newest).order_by(*sealed_table.identity).limit(BATCH)
    if after:
        query = query.where(sa.tuple_(*sealed_table.identity) > sa.tuple_(*(sa.literal(part) for part in after)))
    rows = writing.connection.execute(query).all()
    done = [_reseal(writing, sealed_table, row) for row in rows]
    if len(rows) == BATCH:
        then: tuple[int, Position] | None = (number, tuple(getattr(rows[-1], part.name) for part in sealed_table.identity))
    else:
        then = (number + 1, ()) if number + 1 < len(_SEALED_TABLES) else None
    return Step(done.count(True), done.count(False), then)


def _reseal(writing: Writing, sealed_table: _SealedTable, row: Row) -> bool | None:
    """Reseal one value; return whether it was unsealed or had expired, and None if its secret key is unknown."""
    here = sa.and_(*(part == getattr(row, part.name) for part in sealed_table.identity))
    if sealed_table.is_expired(row, writing.now_ms):
        writing.connection.execute(sealed_table.table.delete().where(here))
        return True
    if row.secret_key_id not in writing.vault.secret_key_ids:
        return None
    try:
        context = sealed_table.seal_context(row)
        sealed = writing.vault.seal(writing.vault.open(Sealed(row.secret_key_id, row.box), context), context)
    except UnsealError:
        sealed = Sealed(writing.vault.newest, row.box)
        opened = False
    else:
        opened = True
    writing.connection.execute(sealed_table.table.update().where(here).values(secret_key_id=sealed.secret_key_id, box=sealed.box))
    return opened


def _reseal_peppers(writing: Writing) -> None:
    """Store the peppers that API keys were hashed with, sealed with the newest secret key; delete the peppers that no API key needs."""
    vault, connection = writing.vault, writing.connection
    hashed_by = set(connection.execute(sa.select(keys.c.secret_key_id).where(keys.c.revoke_ms.is_(None)).distinct()).scalars())
    connection.execute(key_peppers.delete().where(key_peppers.c.id.not_in(hashed_by)))
    for name in sorted(hashed_by - {vault.newest}):
        pepper = vault.pepper(name)
        if pepper is not None:
            sealed = vault.seal(pepper, secret_keys.pepper_context(name))
            connection.execute(key_peppers.delete().where(key_peppers.c.id == name))
            connection.execute(key_peppers.insert().values(id=name, secret_key_id=sealed.secret_key_id, box=sealed.box))
            vault.keep_pepper(name, pepper)


def _credential_context(row: Row) -> str:
    if row.credential is None:
        raise UnsealError
    return store_credentials.seal_context(row.consumer_id, credential_from(row.credential).kind, row.subscription_id)


_SEALED_TABLES = (
    _SealedTable(
        table=signing_secrets,
        identity=(signing_secrets.c.subscription_id, signing_secrets.c.number),
        rows=sa.select(signing_secrets),
        seal_context=lambda row: store_secrets.seal_context(row.subscription_id),
        is_expired=lambda row, now_ms: row.expire_ms is not None and row.expire_ms <= now_ms,
    ),
    _SealedTable(
        table=credential_secrets,
        identity=(credential_secrets.c.subscription_id,),
        rows=sa.select(credential_secrets, subscriptions.c.consumer_id, subscriptions.c.credential).join_from(
            credential_secrets, subscriptions, credential_secrets.c.subscription_id == subscriptions.c.id
        ),
        seal_context=_credential_context,
        is_expired=lambda _row, _now_ms: False,
    ),
    _SealedTable(
        table=answers,
        identity=(answers.c.scope, answers.c.method, answers.c.request_id),
        rows=sa.select(answers),
        seal_context=lambda row: IdempotentCall(row.scope, row.method, row.request_id, b"").seal_context,
        is_expired=lambda row, now_ms: row.create_ms <= now_ms - KEPT_MS,
    ),
)
