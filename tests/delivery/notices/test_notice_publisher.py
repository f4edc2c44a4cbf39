import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

import pytest
from structlog.testing import capture_logs

from services.delivery.errors import LedgerFullError
from services.delivery.ledger.protocol import Flush, Ledger
from services.delivery.notices.notice import Notice
from services.delivery.notices.notice_client import Refusal
from services.delivery.notices.notice_publisher import NoticePublisher
from services.delivery.notices.outbox import EXHAUSTED_MAX, Outbox
from services.runtime.errors import Failure, Reason
from tests.delivery.ledger.stores import LedgerStore
from tests.delivery.notices.examples import notice
from tests.support.waiting import until, until_so


class IngestOfTests:
    """Ingest's service for notices: it knows a notice by source and id, and may refuse."""

    def __init__(self) -> None:
        self.published: dict[tuple[str, str], Notice] = {}
        self.calls = 0
        self.failures = 0
        self.refusals: dict[str, Refusal] = {}
        self.answers_come = True

    async def publish(self, notices: Sequence[Notice], source: str) -> list[Refusal | None]:
        """Take notices."""
        self.calls += 1
        if self.failures:
            self.failures -= 1
            raise Failure(Reason.UNAVAILABLE, "away")
        results = [self.refusals.get(each.id) for each in notices]
        self.published |= {(source, each.id): each for each, refusal in zip(notices, results, strict=True) if refusal is None}
        if not self.answers_come:
            await asyncio.Event().wait()
        return results


class World:
    """An outbox, its ledger, and ingest."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger, self.ingest = ledger, IngestOfTests()
        self.outbox = Outbox(lambda: None)
        self.registry_id = "reg_1"

    async def flush(self, *notices: Notice) -> None:
        """Write notices as the recorder does."""
        for each in notices:
            self.outbox.add(each)
        await self.ledger.flush(Flush(notices=self.outbox.take()))
        self.outbox.flushed()

    @contextlib.asynccontextmanager
    async def publishing(self) -> AsyncIterator[None]:
        """Run a publisher; cancel it at the end."""
        publisher = NoticePublisher(self.ledger, self.outbox, self.ingest, lambda: self.registry_id)
        task = asyncio.get_running_loop().create_task(publisher.run())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def until_empty(self) -> None:
        """Wait until the ledger has no notices."""

        async def is_empty() -> bool:
            return not await self.ledger.outbox_page(1)

        await until_so(is_empty)


@pytest.fixture
async def world(store: LedgerStore) -> AsyncIterator[World]:
    async with store.open() as ledger:
        await ledger.take_lease("one")
        yield World(ledger)


async def test_notices_are_published_under_the_registry_s_source_and_leave_the_outbox(world: World) -> None:
    made = [notice() for _ in range(250)]
    async with world.publishing():
        await world.flush(*made)
        await world.until_empty()
    assert world.ingest.published == {("/hooktide/reg_1", each.id): each for each in made}
    assert world.ingest.calls == 3


async def test_while_ingest_is_away_notices_wait(world: World) -> None:
    world.ingest.failures = 3
    with capture_logs() as logs:
        async with world.publishing():
            await world.flush(notice())
            await world.until_empty()
    assert len(world.ingest.published) == 1
    assert [entry["reason"] for entry in logs if entry["event"] == "notices.not_published"] == ["UNAVAILABLE"] * 3


async def test_nothing_is_published_before_the_registry_is_known(world: World) -> None:
    world.registry_id = ""
    with capture_logs() as logs:
        async with world.publishing():
            await world.flush(notice())
            await until(lambda: any(entry["event"] == "notices.not_published" for entry in logs))
            assert not world.ingest.calls
            world.registry_id = "reg_2"
            await world.until_empty()
    assert [source for source, _ in world.ingest.published] == ["/hooktide/reg_2"]


async def test_a_crash_between_publishing_and_forgetting_publishes_again_and_loses_nothing(world: World) -> None:
    """Ingest knows the repeated notice by its source and id."""
    made = notice()
    world.ingest.answers_come = False
    async with world.publishing():
        await world.flush(made)
        await until(lambda: len(world.ingest.published) == 1)
    assert len(await world.ledger.outbox_page(10)) == 1
    successor = World(world.ledger)
    successor.ingest, successor.ingest.answers_come = world.ingest, True
    successor.outbox.resume(await world.ledger.outbox_counts())
    async with successor.publishing():
        await successor.until_empty()
    assert (world.ingest.calls, len(world.ingest.published)) == (2, 1)


async def test_a_notice_that_the_log_has_already_leaves_the_outbox(world: World) -> None:
    known, fresh, wrong = notice(), notice(), notice()
    world.ingest.refusals = {
        known.id: Refusal(Reason.EVENT_ID_CONFLICT, "a different event"),
        wrong.id: Refusal(Reason.INVALID_ARGUMENT, "type: is wrong"),
    }
    with capture_logs() as logs:
        async with world.publishing():
            await world.flush(known, fresh, wrong)
            await world.until_empty()
    assert [each for _, each in world.ingest.published] == [fresh.id]
    assert [entry["reason"] for entry in logs if entry["event"] == "notice.refused"] == ["type: is wrong"]


async def test_a_full_log_keeps_notices_in_the_outbox(world: World) -> None:
    made = notice()
    world.ingest.refusals = {made.id: Refusal(Reason.LOG_FULL, "the event log is full")}
    async with world.publishing():
        await world.flush(made, notice())
        await until(lambda: world.ingest.calls >= 2)
        assert [row.id for row in await world.ledger.outbox_page(10)] == [made.id]
        world.ingest.refusals = {}
        await world.until_empty()
    assert len(world.ingest.published) == 2


async def test_a_full_disk_of_the_ledger_ends_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    refusals = [LedgerFullError("the disk is full")]
    forget = world.ledger.forget_notices

    async def forget_later(ids: Sequence[str]) -> None:
        if refusals:
            raise refusals.pop()
        await forget(ids)

    monkeypatch.setattr(world.ledger, "forget_notices", forget_later)
    async with world.publishing():
        await world.flush(notice())
        await world.until_empty()
    assert len(world.ingest.published) == 1


async def test_what_found_no_room_is_told_by_its_number_in_the_end(world: World) -> None:
    """1 000 notices too many while ingest is away: one notice more tells of them, nothing is dropped silently."""
    await world.flush(*(notice() for _ in range(EXHAUSTED_MAX + 1000)))
    async with world.publishing():
        await until(lambda: len(world.ingest.published) == EXHAUSTED_MAX + 1)
        await world.until_empty()
    (number,) = [each for each in world.ingest.published.values() if not each.subject]
    assert b'"suppressed":1000' in number.data
