import json

import pytest

from services.delivery.notices import notice as notices
from services.delivery.notices.notice import notice_of
from services.delivery.notices.outbox import EXHAUSTED_MAX, NOTICES_MAX, Outbox
from services.runtime.ids import new_id
from tests.delivery.notices.examples import CONSUMER, NOW_MS, notice


@pytest.fixture
def outbox() -> Outbox:
    return Outbox(lambda: None)


def flush(outbox: Outbox) -> list[notices.Notice]:
    """Write what the outbox has; return the notices."""
    written = [notice_of(row) for row in outbox.take()]
    outbox.flushed()
    return written


def numbers(written: list[notices.Notice]) -> list[int]:
    """Return the numbers of suppressed notices that notices tell."""
    return [json.loads(each.data)["suppressed"] for each in written if not each.subject]


async def test_a_flush_takes_each_notice_once(outbox: Outbox) -> None:
    assert not outbox
    first, second = notice(), notice()
    outbox.add(first)
    assert outbox
    assert flush(outbox) == [first]
    outbox.add(second)
    assert flush(outbox) == [second]
    assert not outbox


async def test_a_notice_asks_for_a_flush_and_wakes_the_publisher_only_when_the_ledger_has_it() -> None:
    asked: list[bool] = []
    outbox = Outbox(lambda: asked.append(True))
    outbox.add(notice())
    assert asked
    outbox.take()
    assert not outbox.stored.is_set()
    outbox.flushed()
    assert outbox.stored.is_set()


async def test_beyond_the_bound_one_notice_tells_the_number(outbox: Outbox) -> None:
    """The number grows in place, and another consumer has its own room."""
    other = notice(new_id("con"))
    for _ in range(EXHAUSTED_MAX + 3):
        outbox.add(notice())
    outbox.add(other)
    written = flush(outbox)
    assert (len(written), numbers(written)) == (EXHAUSTED_MAX + 2, [3])
    assert other in written
    (first,) = [each for each in written if not each.subject]
    outbox.add(notice())
    (again,) = flush(outbox)
    assert (again.id, numbers([again])) == (first.id, [4])


async def test_notices_about_subscriptions_find_room_when_those_about_deliveries_do_not(outbox: Outbox) -> None:
    for _ in range(EXHAUSTED_MAX):
        outbox.add(notice())
    for number in range(NOTICES_MAX - EXHAUSTED_MAX + 2):
        outbox.add(notices.disabled(CONSUMER, new_id("sub"), number, since_ms=NOW_MS, reason="gone"))
    written = flush(outbox)
    assert sum(each.type == notices.DISABLED and bool(each.subject) for each in written) == NOTICES_MAX - EXHAUSTED_MAX
    assert numbers(written) == [2]


async def test_the_number_is_published_once_it_can_change_no_more(outbox: Outbox) -> None:
    """While the consumer has no room the number may grow; then it ends, is written, and only after that it may be published."""
    for _ in range(EXHAUSTED_MAX + 1):
        outbox.add(notice())
    written = flush(outbox)
    (number,) = [each for each in written if not each.subject]
    assert outbox.seal() == {number.id}
    outbox.add(notice())
    outbox.forgotten([each for each in written if each.subject])
    assert outbox.seal() == {number.id}  # its last form is not written yet
    assert numbers(flush(outbox)) == [2]
    assert not outbox.seal()


async def test_the_number_waits_for_the_flush_that_is_under_way(outbox: Outbox) -> None:
    for _ in range(EXHAUSTED_MAX + 1):
        outbox.add(notice())
    written = [notice_of(row) for row in outbox.take()]
    outbox.forgotten([each for each in written if each.subject])
    assert {each.id for each in written} <= set(outbox.seal())
    outbox.flushed()
    assert not outbox.seal()


async def test_after_an_overflow_the_next_one_counts_anew(outbox: Outbox) -> None:
    ids = set()
    for _ in range(2):
        for _ in range(EXHAUSTED_MAX + 1):
            outbox.add(notice())
        written = flush(outbox)
        assert numbers(written) == [1]
        ids |= {each.id for each in written if not each.subject}
        outbox.forgotten(written)
        outbox.seal()
    assert len(ids) == 2


async def test_notices_of_an_earlier_process_take_room(outbox: Outbox) -> None:
    outbox.resume({CONSUMER: EXHAUSTED_MAX})
    assert outbox.stored.is_set()
    outbox.add(notice())
    assert numbers(flush(outbox)) == [1]
