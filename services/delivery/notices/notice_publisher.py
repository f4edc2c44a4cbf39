"""Notice publisher: publishes the notices of the ledger's outbox, and then deletes them there.

ledger → outbox → [notice_publisher] → notice_client ─gRPC─▶ ingest → event log → router

Law 1: a notice leaves the outbox only after ingest has it. A crash between the two publishes the notice again, and ingest knows it by its
source and id; so a consumer gets it once.
Law 2: one call is under way at a time. After a call without an answer the waits double, up to 5 s.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Never, Protocol

from services.delivery.errors import LedgerFullError
from services.delivery.ledger.rows import NoticeRow
from services.delivery.notices.notice import Notice, notice_of
from services.delivery.notices.notice_client import Refusal
from services.delivery.notices.outbox import Outbox
from services.runtime.errors import Failure, Reason
from services.runtime.event_types import RESERVED_SOURCE_PREFIX
from services.runtime.logs import logger

_PAGE = 100
# At most 1 000 notices a second, so that many exhausted deliveries at once leave ingest's and delivery's core to events.
_PAUSE_S = 0.1
_BACKOFF_FIRST_S, _BACKOFF_MAX_S = 0.1, 5.0
_TRY_AGAIN = frozenset({Reason.LOG_FULL, Reason.STORAGE_FULL, Reason.OVERLOADED, Reason.UNAVAILABLE})


class StoredNotices(Protocol):
    """The part of the ledger that holds the outbox."""

    async def outbox_page(self, limit: int) -> list[NoticeRow]:
        """Return up to `limit` of the oldest notices."""
        ...

    async def forget_notices(self, ids: Sequence[str]) -> None:
        """Delete published notices."""
        ...


class PublishNotices(Protocol):
    """Publishes notices."""

    async def publish(self, notices: Sequence[Notice], source: str) -> list[Refusal | None]:
        """Return for each notice, in order, why it was refused, or None; raise `Failure` if there is no answer."""
        ...


class NoticePublisher:
    """Empties the outbox of one worker."""

    def __init__(self, ledger: StoredNotices, outbox: Outbox, ingest: PublishNotices, registry_id: Callable[[], str]) -> None:
        """`registry_id` returns the id of the registry, "" while it is unknown."""
        self._ledger = ledger
        self._outbox = outbox
        self._ingest = ingest
        self._registry_id = registry_id

    async def run(self) -> Never:
        """Publish until cancelled."""
        backoff_s = _BACKOFF_FIRST_S
        while True:
            await self._outbox.stored.wait()
            self._outbox.stored.clear()
            while True:
                try:
                    if not await self._publish_page():
                        break
                except (Failure, LedgerFullError) as error:
                    reason = error.reason.name if isinstance(error, Failure) else "the disk is full"
                    logger().warning("notices.not_published", reason=reason, retry_s=backoff_s)
                    await asyncio.sleep(backoff_s)
                    backoff_s = min(backoff_s * 2, _BACKOFF_MAX_S)
                else:
                    backoff_s = _BACKOFF_FIRST_S
                    await asyncio.sleep(_PAUSE_S)

    async def _publish_page(self) -> bool:
        """Publish some notices; return whether there were any. Raises `Failure` or `LedgerFullError`: try again later."""
        blocked = self._outbox.seal()
        rows = await self._ledger.outbox_page(_PAGE + len(blocked))
        notices = [notice_of(row) for row in rows if row.id not in blocked][:_PAGE]
        if not notices:
            return False
        registry_id = self._registry_id()
        if not registry_id:
            raise Failure(Reason.UNAVAILABLE, "The first snapshot of subscriptions is not complete.")
        refusals = await self._ingest.publish(notices, RESERVED_SOURCE_PREFIX + registry_id)
        done = [notice for notice, refusal in zip(notices, refusals, strict=True) if refusal is None or self._gives_up(notice, refusal)]
        if done:
            await self._ledger.forget_notices([each.id for each in done])
            self._outbox.forgotten(done)
        if len(done) < len(notices):
            first = next(refusal for refusal in refusals if refusal is not None and refusal.reason in _TRY_AGAIN)
            raise Failure(first.reason, first.message)
        return True

    def _gives_up(self, notice: Notice, refusal: Refusal) -> bool:
        """Return whether a refused notice leaves the outbox."""
        if refusal.reason in _TRY_AGAIN:
            return False
        # An id is derived from a transition: a conflict means that a notice of the same transition is in the log already.
        if refusal.reason is not Reason.EVENT_ID_CONFLICT:
            logger().error("notice.refused", type=notice.type, consumer=notice.consumer_id, reason=refusal.message)
        return True
