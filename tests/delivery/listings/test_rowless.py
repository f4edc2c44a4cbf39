"""Rowless: which deliveries wait without a row, and how they and rows make one page."""

import dataclasses

import pytest

from services.delivery.dispatch.lane import Lane
from services.delivery.ledger.rows import OpenRow
from services.delivery.listings.rowless import Owed, Rowless, in_listing, is_off, may_want_type, merged, owed_of, rowless, wants
from services.delivery.model import OwedRange, State, SubscriptionStatus, delivery_id, slot_of_delivery
from services.delivery.request.request_settings import RequestSettings, Subscription
from services.runtime.consumer_scope import OwnConsumer
from services.runtime.event_types import patterns_of
from tests.delivery.ledger.deliveries import ALL, NOW_MS, delivery, record, unfinished

OWNER = "con_" + "c" * 32
WISH = Subscription("sub_" + "a" * 32, OWNER, "https://sink.test/", ("order.*",), "/shop", SubscriptionStatus.ACTIVE, 1, RequestSettings())
PATTERNS = frozenset(patterns_of("order.created"))


def waits(number: int, state: State = State.PENDING) -> Rowless:
    """Return the delivery of an event that has no row."""
    return rowless(WISH, "", record(number), state, None)


def owing(*ranges: OwedRange, recorded: int = 100) -> list[tuple[int, int, int]]:
    """Return from where to where a lane owes events, and about how many."""
    lane = Lane(WISH.id, ranges=list(ranges))
    return [(each.after, each.through, each.about) for each in owed_of(lane, WISH, recorded)]


def test_a_range_is_owed_from_where_the_ledger_has_it_up_to_what_is_recorded() -> None:
    """Rows that a flush is just writing are found twice, and the row counts; the other way round they would be missed."""
    moved = OwedRange(WISH.id, 0, at=30, written=(10, None))
    assert owing(moved) == [(10, 100, 90)]
    assert owing(OwedRange(WISH.id, 0, at=30)) == [(30, 100, 70)]
    assert owing(OwedRange(WISH.id, 0, at=30, until=40, written=(30, 40)), OwedRange(WISH.id, 1, at=60)) == [(30, 40, 10), (60, 100, 40)]
    assert owing(OwedRange(WISH.id, 0, at=30, until=40), recorded=35) == [(30, 35, 5)]
    assert owing(OwedRange(WISH.id, 0, at=30, matched=5, examined=10)) == [(30, 100, 35)]


@pytest.mark.parametrize(
    "nothing",
    [
        OwedRange(WISH.id, 0),
        OwedRange(WISH.id, 0, at=100),
        OwedRange(WISH.id, 0, at=120),
        OwedRange(WISH.id, 0, at=30, until=30),
        OwedRange(WISH.id, 0, at=30, cancelled_through=90),
    ],
)
def test_a_range_owes_nothing_before_it_begins_when_it_is_read_and_once_it_is_cancelled(nothing: OwedRange) -> None:
    assert owing(nothing) == []


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, True),
        ({"types": ()}, True),
        ({"types": ("*",)}, True),
        ({"types": ("order.created",)}, True),
        ({"types": ("order",)}, False),
        ({"types": ("invoice.*",)}, False),
        ({"source": ""}, True),
        ({"source": "/other"}, False),
    ],
)
def test_an_event_is_for_a_subscription_by_its_type_and_source(changed: dict[str, object], expected: bool) -> None:  # noqa: FBT001 - a parameter of the test
    subscription = dataclasses.replace(WISH, **changed)  # type: ignore[arg-type]  # fields by name
    assert wants(subscription, record(1), PATTERNS) is expected


def test_an_event_with_an_audience_is_for_that_consumer_only() -> None:
    assert wants(WISH, record(1)._replace(audience=OWNER), PATTERNS)
    assert not wants(WISH, record(1)._replace(audience="con_" + "d" * 32), PATTERNS)


def test_a_notice_is_only_for_a_subscription_that_names_it() -> None:
    notices = frozenset(patterns_of("hooktide.delivery.exhausted"))
    assert not wants(dataclasses.replace(WISH, types=()), record(1), notices)
    assert wants(dataclasses.replace(WISH, types=("hooktide.*",)), record(1), notices)
    assert not may_want_type(dataclasses.replace(WISH, types=()), "hooktide.delivery.exhausted")


def test_a_filter_by_type_leaves_subscriptions_out() -> None:
    assert may_want_type(WISH, "")
    assert may_want_type(WISH, "order.created")
    assert not may_want_type(WISH, "invoice.paid")


def test_only_a_subscription_that_is_off_gets_nothing() -> None:
    assert [status for status in SubscriptionStatus if is_off(dataclasses.replace(WISH, status=status))] == [SubscriptionStatus.OFF]


def test_what_waits_has_the_id_of_its_later_row_and_the_slot_of_its_subscription() -> None:
    found = waits(5)
    assert found.id == unfinished(5).id == delivery(5).id
    of = record(5)
    assert found[1:] == (of.event_id, of.partition, 5, WISH.id, OWNER, of.type, NOW_MS + 5, State.PENDING, None)
    assert rowless(WISH, "start", record(5), State.PENDING, None).id == delivery_id(record(5).event_id, WISH.id, "start")
    assert slot_of_delivery(found.id) == 0xAA


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, True),
        ({"scope": OwnConsumer(OWNER)}, True),
        ({"scope": OwnConsumer("con_" + "d" * 32)}, False),
        ({"state": State.PENDING}, True),
        ({"state": State.CANCELLED}, False),
        ({"subscription_id": WISH.id}, True),
        ({"subscription_id": "sub_" + "b" * 32}, False),
        ({"event_id": record(5).event_id}, True),
        ({"event_id": record(6).event_id}, False),
        ({"event_type": "order.created"}, True),
        ({"event_type": "order.paid"}, False),
        ({"start_ms": NOW_MS + 5, "end_ms": NOW_MS + 6}, True),
        ({"start_ms": NOW_MS + 6}, False),
        ({"end_ms": NOW_MS + 5}, False),
        ({"before_id": waits(6).id}, True),
        ({"before_id": waits(5).id}, False),
    ],
)
def test_what_waits_is_filtered_as_rows_are(changed: dict[str, object], expected: bool) -> None:  # noqa: FBT001 - a parameter of the test
    assert in_listing(waits(5), ALL._replace(**changed)) is expected  # type: ignore[arg-type]  # fields by name


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 9])
def test_pages_of_rows_and_others_hold_each_delivery_once(limit: int) -> None:
    """The rows come in pages of their own, which may end before the limit because a call examines a bounded number of them."""
    rows, others = [unfinished(number) for number in (1, 3, 5, 7)], [waits(number) for number in (2, 3, 6, 8, 9)]
    seen: list[bytes] = []
    before: bytes | None = None
    while True:
        left = sorted((row for row in rows if before is None or row.id < before), key=lambda row: row.id, reverse=True)
        page = left[:2]
        rows_end = page[-1].id if len(left) > len(page) else None
        items, before = merged(page, rows_end, (each for each in others if before is None or each.id < before), limit)
        assert len(items) <= limit
        seen += [item.id for item in items]
        assert isinstance(next((item for item in items if item.id == unfinished(3).id), unfinished(3)), OpenRow), "the row counts"
        if before is None:
            break
    assert seen == [unfinished(number).id for number in (9, 8, 7, 6, 5, 3, 2, 1)]


def test_a_full_page_with_nothing_behind_it_is_the_last() -> None:
    assert merged([unfinished(1)], None, [waits(2)], 2) == ([waits(2), unfinished(1)], None)
    assert merged([unfinished(1)], None, [waits(2)], 1) == ([waits(2)], waits(2).id)


def test_what_lies_below_the_rows_that_were_examined_belongs_on_a_later_page() -> None:
    end = unfinished(4).id
    assert merged([unfinished(5)], end, [waits(6), waits(4), waits(3)], 9) == ([waits(6), unfinished(5), waits(4)], end)
    assert merged([], end, [waits(3)], 9) == ([], end)


def test_what_is_owed_names_its_job() -> None:
    lane = Lane(WISH.id, ranges=[OwedRange(WISH.id, 0, "start", at=3, until=9)])
    assert list(owed_of(lane, WISH, 100)) == [Owed(WISH, "start", 3, 9, 6)]
