"""Answers: a call sent twice is carried out once, and answered twice.

server → [answers] → subscriptions, access

Law 1: the answer is written in the transaction of the change it speaks of, so neither stands without the other.
Law 2: answers hold secrets; they are sealed for their own place, together with the digest of the request.
"""

from collections.abc import Callable
from dataclasses import dataclass

import sqlalchemy as sa

from services.subscription.errors import request_id_reused
from services.subscription.store.schema import answers
from services.subscription.store.transaction import Writing
from services.subscription.store.vault import Sealed

KEPT_MS = 24 * 3600 * 1000
_FORGOTTEN_MAX = 50
_DIGEST_BYTES = 32


@dataclass(frozen=True, slots=True)
class Once:
    """A call that may be sent twice: who calls what, by which request id ("": not idempotent), with which content."""

    scope: str
    method: str
    request_id: str
    digest: bytes

    @property
    def place(self) -> str:
        """Where the answer is sealed for; lengths keep different calls apart."""
        return f"answer/{len(self.scope)}/{self.scope}/{self.method}/{self.request_id}"


def answered(writing: Writing, once: Once, work: Callable[[], bytes]) -> bytes:
    """Return the answer that the same call was given within 24 hours; else carry it out, keep its answer and return it.

    Raises IDEMPOTENCY_KEY_REUSED where the request id came with other content, and whatever `work` raises.
    """
    if not once.request_id:
        return work()
    assert len(once.digest) == _DIGEST_BYTES  # noqa: S101 - a caller's mistake, not an input
    here = sa.and_(answers.c.scope == once.scope, answers.c.method == once.method, answers.c.request_id == once.request_id)
    row = writing.connection.execute(sa.select(answers).where(here)).one_or_none()
    if row is not None and row.create_ms > writing.now_ms - KEPT_MS:
        kept = writing.vault.open(Sealed(row.secret_key_id, row.box), once.place)
        if kept[:_DIGEST_BYTES] != once.digest:
            raise request_id_reused()
        return kept[_DIGEST_BYTES:]
    answer = work()
    sealed = writing.vault.seal(once.digest + answer, once.place)
    writing.connection.execute(answers.delete().where(here))
    writing.connection.execute(
        answers.insert().values(
            scope=once.scope,
            method=once.method,
            request_id=once.request_id,
            secret_key_id=sealed.secret_key_id,
            box=sealed.box,
            create_ms=writing.now_ms,
        )
    )
    _forget(writing)
    return answer


def _forget(writing: Writing) -> None:
    """Remove some of the answers that have had their time; each write removes more than it adds."""
    rowid = sa.literal_column("rowid", sa.Integer)
    old = (
        sa.select(rowid)
        .select_from(answers)
        .where(answers.c.create_ms <= writing.now_ms - KEPT_MS)
        .order_by(answers.c.create_ms)
        .limit(_FORGOTTEN_MAX)
    )
    writing.connection.execute(answers.delete().where(rowid.in_(old)))
