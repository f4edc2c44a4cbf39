"""Notices: ingest's service for notices, in memory."""

from collections.abc import Awaitable, Callable, Sequence

from services.delivery.notices.notice import Notice
from services.delivery.notices.notice_client import Refusal


class PublishedNotices:
    """The notices that the log has, by their ids; a notice that is published again is the first one."""

    def __init__(self, pause: Callable[[], Awaitable[None]]) -> None:
        """`pause` takes as long as a network does."""
        self._pause = pause
        self.by_id: dict[str, Notice] = {}

    async def publish(self, notices: Sequence[Notice], source: str) -> list[Refusal | None]:
        """Take notices."""
        assert source != "/hooktide/"
        await self._pause()
        for notice in notices:
            self.by_id.setdefault(notice.id, notice)
        await self._pause()
        return [None] * len(notices)
