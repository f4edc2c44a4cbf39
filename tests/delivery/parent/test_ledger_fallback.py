"""Ledger fallback: callers of different scopes take turns at the files."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.delivery.ledger.protocol import Listing, Page
from services.delivery.ledger.rows import DoneRow, OpenRow
from services.delivery.model import State
from services.delivery.parent import ledger_fallback
from services.delivery.parent.ledger_fallback import LedgerFallback
from services.runtime.consumer_scope import EVERYONE, Scope, parse_scope
from services.runtime.errors import Failure, Reason

EAGER, OTHER = (parse_scope(f"con_{digit * 32}") for digit in "1a")


class SlowFile:
    """A file whose answers to one consumer wait until the test lets them go."""

    def __init__(self) -> None:
        self.may_answer = asyncio.Event()
        self.reading = 0

    async def find(self, scope: Scope, _delivery_id: bytes) -> OpenRow | DoneRow | None:
        """Answer with nothing."""
        self.reading += 1
        if scope == EAGER:
            await self.may_answer.wait()
        return None

    async def page(self, _listing: Listing) -> Page:
        """Answer with nothing."""
        return Page([], None)

    async def ended_totals(self, _scope: Scope, _subscription_id: str) -> dict[State, int]:
        """Answer with nothing."""
        return {}


async def test_a_consumer_that_asks_much_keeps_no_other_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_fallback, "_SCOPE_WAITING_MAX", 30)
    file = SlowFile()

    @contextlib.asynccontextmanager
    async def opened(_path: Path) -> AsyncIterator[SlowFile]:
        yield file

    files = LedgerFallback(tmp_path / "delivery.db", 2, opened)
    async with asyncio.TaskGroup() as group:
        for _ in range(32):
            group.create_task(files.find(1, EAGER, b""))
        await asyncio.sleep(0)
        with pytest.raises(Failure) as refused:
            await files.find(1, EAGER, b"")
        assert refused.value.reason is Reason.OVERLOADED
        assert file.reading == 2
        for scope in (OTHER, EVERYONE):
            await files.find(1, scope, b"")
        assert file.reading == 4
        file.may_answer.set()
    assert file.reading == 34
