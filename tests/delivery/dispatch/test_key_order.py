"""Key order: a delivery starts only if it is the first unfinished one of its key, whatever happens to the others."""

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from services.delivery.dispatch import key_order
from services.delivery.dispatch.key_order import KeyOrder
from services.delivery.dispatch.lane import Lane
from services.delivery.dispatch.owed_ranges import ALL
from services.delivery.ledger.rows import OpenRow, WaitingRow, open_row
from services.delivery.model import Delivery, OwedRange
from tests.delivery.dispatch.dispatching import Dispatching
from tests.delivery.ledger.deliveries import delivery as made

A, B = b"a", b"b"


def delivery(position: int, key: bytes = A, due_ms: int = 0) -> Delivery:
    """Return a delivery of a key."""
    found = made(position)
    found.order_key, found.due_ms = key, due_ms
    return found


def row_of(each: Delivery) -> WaitingRow:
    """Return what the ledger tells of a delivery's row."""
    return WaitingRow(each.id, each.order_key, each.position, each.due_ms)


def complete() -> KeyOrder:
    """Return the order of a lane without rows."""
    return KeyOrder(is_complete=True)


def test_a_key_waits_and_others_go_on() -> None:
    order, one, two, other = complete(), delivery(1), delivery(2), delivery(3, B)
    for each in (one, two, other):
        order.add(each)
    assert [order.may_start(each) for each in (one, two, other)] == [True, False, True]
    order.wait(two)
    assert (order.waiting, order.waiting_deliveries()) == (1, [two])
    assert order.end(other) is None
    assert order.end(one) is two
    assert order.may_start(two)
    assert order.end(two) is None
    assert (len(order), order.waiting) == (0, 0)


def test_deliveries_without_a_key_do_not_wait_for_each_other() -> None:
    order, one, two = complete(), delivery(1, b""), delivery(2, b"")
    order.add(one)
    order.add(two)
    assert order.may_start(two)


def test_a_delivery_behind_a_row_of_its_key_becomes_a_row() -> None:
    order, one, two, three = complete(), delivery(1), delivery(2), delivery(3)
    order.add(one)
    assert not order.has_row_before(A, 2)
    order.leaves(one)
    assert order.has_row_before(A, 2)
    assert not order.has_row_before(A, 1)
    assert not order.has_row_before(B, 2)
    order.add(two)
    order.wait(two)
    order.add(three)
    order.wait(three)
    assert order.take_waiting(A, 1) == [two, three]
    assert order.take_waiting(B, 1) == []
    assert (order.waiting, order.take_all_waiting()) == (0, [])


def test_only_the_first_row_of_a_key_is_read_once_it_is_due() -> None:
    """The rows behind the head come with it, if there is room and they are due too."""
    order, first, second, third = complete(), delivery(1, due_ms=50), delivery(2), delivery(3)
    for each in (third, second, first):
        order.row(each)
    order.row(delivery(4, B, due_ms=70))
    assert order.next_due_ms(ALL) == 50
    assert order.due_rows(49, ALL, 10) == []
    assert order.due_rows(50, ALL, 10) == [row_of(first), row_of(second), row_of(third)]
    assert order.due_rows(50, ALL, 2) == [row_of(first), row_of(second)]
    assert order.due_rows(50, ALL, 0) == []
    assert [order.may_read(row(each), 50) for each in (first, second)] == [True, False]
    assert not order.may_read(row(first), 49)
    assert not order.may_read(row(delivery(9)), 50)
    order.add(first)
    assert order.next_due_ms(ALL) == 70
    assert order.may_read(row(second), 50)
    assert order.end(first) is None
    assert order.next_due_ms(ALL) == 0
    order.leaves(third)
    assert order.due_rows(50, ALL, 10) == [row_of(second)]


def row(each: Delivery) -> OpenRow:
    """Return a delivery's row."""
    return open_row(each)


def test_a_row_above_what_the_lane_owes_waits_for_it() -> None:
    order, low, high = complete(), delivery(5), delivery(9, B)
    order.row(high)
    order.row(low)
    assert order.next_due_ms(4) is None
    assert order.due_rows(0, 5, 10) == [row_of(low)]
    order.end(low)
    assert order.next_due_ms(8) is None
    assert order.due_rows(0, 9, 10) == [row_of(high)]


def test_rows_behind_the_first_stay_if_the_lane_owes_events_before_them() -> None:
    order, low, high = complete(), delivery(5), delivery(9)
    order.row(low)
    order.row(high)
    assert order.due_rows(0, 5, 10) == [row_of(low)]


def test_nothing_starts_before_the_rows_are_known() -> None:
    order, two, three, left = KeyOrder(is_complete=False), delivery(2), delivery(3, B), delivery(4, b"c")
    for each in (two, three):
        order.add(each)
        assert not order.may_start(each)
        order.wait(each)
    gone = delivery(5, b"d")
    order.add(gone)
    assert order.end(gone) is None
    assert order.next_due_ms(ALL) == 0
    assert order.load([row_of(delivery(1)), row_of(two), row_of(left)], {left.id}) == [three]
    assert order.due_rows(0, ALL, 10) == [row_of(delivery(1))]
    assert order.end(row_of(delivery(1))) is two


def test_rows_are_forgotten_and_loaded_again() -> None:
    order, one, two, other = complete(), delivery(1), delivery(2), delivery(3, B)
    order.row(one)
    order.add(two)
    order.wait(two)
    order.row(other)
    order.forget_rows()
    assert (len(order), order.is_complete) == (1, False)
    assert order.load([], set()) == [two]


def test_rows_that_are_brought_forward_are_due() -> None:
    order, one, two = complete(), delivery(1, due_ms=90), delivery(2, B, due_ms=10)
    order.row(one)
    order.row(two)
    order.bring_forward(50)
    assert order.next_due_ms(ALL) == 10
    order.end(two)
    assert (order.next_due_ms(ALL), len(order.due_rows(50, ALL, 10))) == (50, 1)


def test_a_lane_takes_no_more_once_too_many_wait() -> None:
    """The first of a key does not count, since it waits for no other."""
    order = complete()
    for position in range(key_order.WAITING_MAX):
        order.row(delivery(position + 1))
    order.row(delivery(1, B))
    assert not order.is_full
    order.add(delivery(key_order.WAITING_MAX + 1))
    assert order.is_full


def test_the_end_of_an_unknown_delivery_has_no_effect() -> None:
    order = complete()
    assert order.end(delivery(1)) is None
    order.add(delivery(1))
    assert order.end(delivery(2)) is None
    assert len(order) == 1


def test_a_full_lane_reads_a_range_only_if_it_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows above an end wait until the range is read, so a full lane that did not read it would wait for ever."""
    monkeypatch.setattr(key_order, "WAITING_MAX", 1)
    lanes, lane, owed = Dispatching().dispatcher.lanes, Lane("a", is_proven=True, order=complete()), OwedRange("a", 0, at=4)
    lane.ranges.append(owed)
    assert lane.order is not None
    lane.order.row(delivery(8))
    assert lanes.room_for_page(lane) > 0
    lane.order.row(delivery(9))
    assert lanes.room_for_page(lane) == 0
    owed.until = 7
    assert lanes.room_for_page(lane) > 0


class Lanes(RuleBasedStateMachine):
    """Compares a lane with the plain rule that a key's lowest unfinished position goes, through failures, crashes and moves to rows."""

    def __init__(self) -> None:
        super().__init__()
        self.order = complete()
        self.head = 0
        self.unfinished: dict[int, Delivery] = {}
        self.rows: dict[int, Delivery] = {}
        self.queue: list[Delivery] = []
        self.under_way: dict[int, Delivery] = {}
        self.started: dict[bytes, list[int]] = {}
        self.now_ms = 0

    @rule(key=st.sampled_from([A, B, b"c"]))
    def route(self, key: bytes) -> None:
        """Route an event."""
        self.head += 1
        each = self.unfinished[self.head] = delivery(self.head, key)
        if self.order.has_row_before(key, self.head):
            self.order.leaves(each)
            self._write(each)
        else:
            self._queue(each)

    def _queue(self, each: Delivery) -> None:
        self.order.add(each)
        if self.order.may_start(each):
            self.queue.append(each)
        else:
            self.order.wait(each)

    def _write(self, each: Delivery) -> None:
        self.rows[each.position] = each
        self.order.row(each)

    @precondition(lambda self: self.queue)
    @rule(data=st.data())
    def start(self, data: st.DataObject) -> None:
        """Start an attempt of what is queued: no earlier one of its key is unfinished."""
        each = self.queue.pop(data.draw(st.integers(0, len(self.queue) - 1)))
        assert not [at for at, other in self.unfinished.items() if at < each.position and other.order_key == each.order_key]
        self.under_way[each.position] = each

    @precondition(lambda self: self.under_way)
    @rule(data=st.data())
    def succeed(self, data: st.DataObject) -> None:
        """End an attempt with success."""
        self._end(self.under_way.pop(data.draw(st.sampled_from(sorted(self.under_way)))))

    def _end(self, each: Delivery) -> None:
        del self.unfinished[each.position]
        self.rows.pop(each.position, None)
        if (following := self.order.end(each)) is not None:
            self.queue.append(following)

    @precondition(lambda self: self.under_way)
    @rule(data=st.data(), wait_ms=st.integers(0, 5))
    def fail(self, data: st.DataObject, wait_ms: int) -> None:
        """End an attempt with a failure, or withdraw it: it becomes a row, and so does what waits behind it."""
        each = self.under_way.pop(data.draw(st.sampled_from(sorted(self.under_way))))
        each.due_ms = self.now_ms + wait_ms
        self.order.leaves(each)
        behind = self.order.take_waiting(each.order_key, each.position)
        for other in (each, *behind):
            self.order.leaves(other)
            self._write(other)

    @rule(room=st.integers(0, 4))
    def read_back(self, room: int) -> None:
        """Let time pass, and read rows back that are due."""
        self.now_ms += 1
        for found in self.order.due_rows(self.now_ms, ALL, room):
            each = self.rows[found.position]
            if self.order.may_read(row(each), self.now_ms):
                del self.rows[found.position]
                self._queue(each)

    @precondition(lambda self: self.unfinished)
    @rule(data=st.data())
    def expire(self, data: st.DataObject) -> None:
        """End a delivery that waits in memory or as a row."""
        each = self.unfinished[data.draw(st.sampled_from(sorted(self.unfinished)))]
        if each.position not in self.under_way and each not in self.queue:
            self._end(each)

    @rule()
    def crash(self) -> None:
        """Forget everything in memory; the next worker knows it as rows."""
        self.order = KeyOrder(is_complete=False)
        self.queue.clear()
        self.under_way.clear()
        self.rows = dict(self.unfinished)
        assert self.order.load([row_of(each) for each in self.unfinished.values()], set()) == []

    @invariant()
    def nothing_is_forgotten(self) -> None:
        """Each key that has unfinished deliveries goes on: its first one is queued, under way, or a row that is read once it is due."""
        assert len(self.order) == len(self.unfinished)
        for key in {each.order_key for each in self.unfinished.values()}:
            first = min(at for at, each in self.unfinished.items() if each.order_key == key)
            assert first in self.under_way or self.unfinished[first] in self.queue or first in self.rows
        due = [each.due_ms for at, each in self.rows.items() if self._is_first(at)]
        assert self.order.next_due_ms(ALL) == min(due, default=None)

    def _is_first(self, position: int) -> bool:
        key = self.unfinished[position].order_key
        return not [at for at, each in self.unfinished.items() if at < position and each.order_key == key]


TestLanes = Lanes.TestCase
TestLanes.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
