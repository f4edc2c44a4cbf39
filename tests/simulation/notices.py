"""Notices: ingest's service for notices, in memory."""

import json
from collections.abc import Awaitable, Callable, Sequence

from services.delivery.notices.notice import EXHAUSTED, Notice
from services.delivery.notices.notice_client import Refusal


class PublishedNotices:
    """The notices that the log has, by their ids; a notice that is published again is the first one."""

    def __init__(self, pause: Callable[[], Awaitable[None]]) -> None:
        """`pause` takes as long as a network does."""
        self._pause = pause
        self.by_id: dict[str, Notice] = {}

    def exhausted(self) -> list[str]:
        """Return the ids of the deliveries that were told as exhausted, sorted; the bound of the outbox is not reached here."""
        told = [json.loads(each.data) for each in self.by_id.values() if each.type == EXHAUSTED]
        assert not any("suppressed" in each for each in told), "a notice says that others were suppressed"
        return sorted(each["delivery_id"] for each in told)

    async def publish(self, notices: Sequence[Notice], source: str) -> list[Refusal | None]:
        """Take notices."""
        assert source != "/hooktide/"
        await self._pause()
        for notice in notices:
            self.by_id.setdefault(notice.id, notice)
        await self._pause()
        return [None] * len(notices)
