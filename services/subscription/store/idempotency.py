"""Idempotency: a call that is sent twice with one idempotency key (the request id) is carried out once and answered twice.

subscription_server, access_server → [idempotency] → subscriptions, consumers, keys

Law 1: the answer is written in the transaction of its change, so neither exists without the other.
Law 2: answers hold secrets. Each answer is sealed, together with the digest of its request, for its own call.
"""

from collections.abc import Callable

import sqlalchemy as sa

from services.subscription.errors import request_id_reused
from services.subscription.model import IdempotentCall
from services.subscription.store.schema import answers
from services.subscription.store.transaction import Writing
from services.subscription.store.vault import Sealed

KEPT_MS = 24 * 3600 * 1000
_FORGOTTEN_MAX = 50
_DIGEST_BYTES = 32


def answer_once(writing: Writing, call: IdempotentCall, work: Callable[[], bytes]) -> bytes:
    """Return the stored answer to the same call within the last 24 hours; else carry the call out, store its answer and return it.

    Raises IDEMPOTENCY_KEY_REUSED if the request id came with other content, and any error of `work`.
    """
    if not call.request_id:
        return work()
    assert len(call.digest) == _DIGEST_BYTES  # noqa: S101 - a caller's mistake, not an input
    here = sa.and_(answers.c.scope == call.caller, answers.c.method == call.method, answers.c.request_id == call.request_id)
    row = writing.connection.execute(sa.select(answers).where(here)).one_or_none()
    if row is not None and row.create_ms > writing.now_ms - KEPT_MS:
        stored = writing.vault.open(Sealed(row.secret_key_id, row.box), call.seal_context)
        if stored[:_DIGEST_BYTES] != call.digest:
            raise request_id_reused()
        return stored[_DIGEST_BYTES:]
    answer = work()
    sealed = writing.vault.seal(call.digest + answer, call.seal_context)
    writing.connection.execute(answers.delete().where(here))
    writing.connection.execute(
        answers.insert().values(
            scope=call.caller,
            method=call.method,
            request_id=call.request_id,
            secret_key_id=sealed.secret_key_id,
            box=sealed.box,
            create_ms=writing.now_ms,
        )
    )
    _forget(writing)
    return answer


def _forget(writing: Writing) -> None:
    """Delete some of the expired answers; if there are enough, each write deletes more than it adds."""
    identity = answers.primary_key.columns
    old = sa.select(*identity).where(answers.c.create_ms <= writing.now_ms - KEPT_MS).order_by(answers.c.create_ms).limit(_FORGOTTEN_MAX)
    writing.connection.execute(answers.delete().where(sa.tuple_(*identity).in_(old)))
