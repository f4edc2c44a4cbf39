"""Key order: which deliveries of an ordered lane may start, so that events of one key arrive in the order of their positions.

dispatcher, lane_refill → [key_order] → lane

Law 1: a delivery may start only if no unfinished delivery of its key has a lower position. It is then the *head* of its key.
Law 2: a key goes on with its next position once its head has ended, whatever its state. An attempt that fails or is withdrawn ends nothing.
Law 3: nothing starts before all rows of the lane are known, or while its lane owes events of lower positions.
Law 4: pure; each call takes constant time for one delivery, apart from the order of rows in a heap.
"""

import heapq
from collections.abc import Collection, Iterable, Iterator
from typing import Final

from services.delivery.ledger.rows import OpenRow, WaitingRow
from services.delivery.model import Delivery

WAITING_MAX: Final = 10_000
"""How many deliveries of a lane may wait for an earlier one of their keys, in memory or as rows; beyond that the lane is slowed."""
_Key = bytes | int
# Where a delivery stands: in memory, in a row that is not written yet, or in a row with its due time.
_IN_MEMORY, _LEAVING = -2, -1


class _Line:
    """The unfinished deliveries of one key."""

    __slots__ = ("ids", "not_in_memory", "places", "positions", "waiting")

    def __init__(self) -> None:
        self.places: dict[int, int] = {}
        """Where each delivery stands, by its position."""
        self.positions: list[int] = []  # a heap; a position that has left `places` is dropped when it comes up
        self.not_in_memory: list[int] = []  # a heap as well
        self.waiting: dict[int, Delivery] = {}
        """The deliveries that wait in memory for an earlier one."""
        self.ids: dict[int, bytes] = {}
        """The ids of rows."""

    def add(self, position: int, place: int) -> None:
        if position not in self.places:
            heapq.heappush(self.positions, position)
        if place != _IN_MEMORY and self.places.get(position, _IN_MEMORY) == _IN_MEMORY:
            heapq.heappush(self.not_in_memory, position)
        self.places[position] = place

    def head(self) -> int:
        """Return the lowest position. The key must have an unfinished delivery."""
        positions, places = self.positions, self.places
        while positions[0] not in places:
            heapq.heappop(positions)
        return positions[0]

    def first_row(self) -> int | None:
        """Return the lowest position that is not in memory; None if all are in memory."""
        found, places = self.not_in_memory, self.places
        while found and places.get(found[0], _IN_MEMORY) == _IN_MEMORY:
            heapq.heappop(found)
        return found[0] if found else None


class KeyOrder:
    """The unfinished deliveries of one ordered lane, by their keys. A delivery without a key has a key of its own."""

    def __init__(self, *, is_complete: bool) -> None:
        """`is_complete` is whether the lane has no row yet; if not, `load` completes it."""
        self.is_complete = is_complete
        self.waiting = 0
        """How many deliveries wait in memory for an earlier one."""
        self.spilled_through = 0
        """The highest position that routing has spilled to a row: what is routed below it is not let go."""
        self.is_slowed = False
        """Whether it was full at the last look."""
        self._lines: dict[_Key, _Line] = {}
        self._count = 0
        self._due: list[tuple[int, int, _Key]] = []  # a heap of heads that are rows: when due, position, key
        self._beyond: list[tuple[int, int, _Key]] = []
        """The same, for rows above what the lane owes."""
        self._through = 0

    def __len__(self) -> int:
        return self._count

    @property
    def is_full(self) -> bool:
        """Whether so many deliveries wait for an earlier one that the lane takes no more."""
        return self._count - len(self._lines) >= WAITING_MAX

    # Where deliveries stand

    def add(self, delivery: Delivery) -> None:
        """Note that a delivery is in memory: routed, handed out, or read back."""
        self._put(_key_of(delivery.order_key, delivery.position), delivery.position, _IN_MEMORY)

    def leaves(self, delivery: Delivery) -> None:
        """Note that a delivery becomes a row with the next flush, or that its row changes."""
        self._put(_key_of(delivery.order_key, delivery.position), delivery.position, _LEAVING)

    def row(self, delivery: Delivery | WaitingRow) -> None:
        """Note that a delivery is left to its row."""
        position = delivery.position
        key = _key_of(delivery.order_key, position)
        self._put(key, position, max(0, delivery.due_ms))
        line = self._lines[key]
        line.ids[position] = delivery.id
        if line.head() == position:
            heapq.heappush(self._due, (line.places[position], position, key))

    def _put(self, key: _Key, position: int, place: int) -> None:
        line = self._lines.get(key)
        if line is None:
            line = self._lines[key] = _Line()
        if position not in line.places:
            self._count += 1
        line.add(position, place)

    def has_row_before(self, order_key: bytes, position: int) -> bool:
        """Return whether a lower position of a key is a row, or about to be one; the delivery should become a row too."""
        line = self._lines.get(_key_of(order_key, position))
        first = None if line is None else line.first_row()
        return first is not None and first < position

    def may_start(self, delivery: Delivery) -> bool:
        """Return whether a delivery in memory is the head of its key."""
        return self.is_complete and self._lines[_key_of(delivery.order_key, delivery.position)].head() == delivery.position

    def wait(self, delivery: Delivery) -> None:
        """Keep a delivery that may not start yet; `end` returns it once it may."""
        line = self._lines[_key_of(delivery.order_key, delivery.position)]
        if delivery.position not in line.waiting:
            self.waiting += 1
        line.waiting[delivery.position] = delivery

    def end(self, delivery: Delivery | WaitingRow) -> Delivery | None:
        """Note that a delivery has ended, or is let go; return the delivery in memory that may start now, if there is one."""
        key = _key_of(delivery.order_key, delivery.position)
        line = self._lines.get(key)
        if line is None or line.places.pop(delivery.position, None) is None:
            return None
        self._count -= 1
        line.ids.pop(delivery.position, None)
        if line.waiting.pop(delivery.position, None) is not None:
            self.waiting -= 1
        if not line.places:
            del self._lines[key]
            return None
        return self._next(key, line)

    def _next(self, key: _Key, line: _Line) -> Delivery | None:
        head = line.head()
        place = line.places[head]
        if place >= 0:
            heapq.heappush(self._due, (place, head, key))
        if not self.is_complete or head not in line.waiting:
            return None
        self.waiting -= 1
        return line.waiting.pop(head)

    # What waits in memory

    def waiting_deliveries(self) -> list[Delivery]:
        """Return all that waits in memory."""
        return [delivery for line in self._lines.values() for delivery in line.waiting.values()]

    def take_waiting(self, order_key: bytes, position: int) -> list[Delivery]:
        """Return what waits in memory for an earlier delivery of a key, in order of position, and keep it no longer."""
        line = self._lines.get(_key_of(order_key, position))
        return [] if line is None else self._take(line)

    def take_all_waiting(self) -> list[Delivery]:
        """Return all that waits in memory, in order of position within each key, and keep it no longer."""
        return [delivery for line in self._lines.values() if line.waiting for delivery in self._take(line)]

    def _take(self, line: _Line) -> list[Delivery]:
        taken = [line.waiting[position] for position in sorted(line.waiting)]
        self.waiting -= len(taken)
        line.waiting.clear()
        return taken

    # Rows

    def next_due_ms(self, through: int) -> int | None:
        """Return when the next row may be read that is the head of its key, up to a position; None if there is no such row."""
        if not self.is_complete:
            return 0
        self._reach(through)
        due = self._due
        while due:
            if not self._is_current(*due[0]):
                heapq.heappop(due)
            elif due[0][1] > through:
                self._beyond.append(heapq.heappop(due))
            else:
                return due[0][0]
        return None

    def _reach(self, through: int) -> None:
        if through != self._through:
            self._through = through
            for each in self._beyond:
                heapq.heappush(self._due, each)
            self._beyond.clear()

    def _is_current(self, due_ms: int, position: int, key: _Key) -> bool:
        line = self._lines.get(key)
        return line is not None and line.places.get(position) == due_ms and line.head() == position

    def due_rows(self, now_ms: int, through: int, limit: int) -> list[WaitingRow]:
        """Return up to `limit` rows to read back: heads that are due, up to a position, and what follows them."""
        heads, seen = list[tuple[int, int, _Key]](), set[_Key]()
        while len(heads) < limit and (due_ms := self.next_due_ms(through)) is not None and due_ms <= now_ms:
            each = heapq.heappop(self._due)
            if each[2] not in seen:
                seen.add(each[2])
                heads.append(each)
        for each in heads:
            heapq.heappush(self._due, each)
        share = limit // max(1, len(heads))
        return [row for _, _, key in heads for row in _first_rows(key, self._lines[key], now_ms, through, share)]

    def may_read(self, row: OpenRow, now_ms: int) -> bool:
        """Return whether a row may come into memory now: it is due, and no lower position of its key is a row."""
        line = self._lines.get(_key_of(row.order_key, row.position))
        return line is not None and line.first_row() == row.position and 0 <= line.places[row.position] <= now_ms

    def load(self, rows: Iterable[WaitingRow], elsewhere: Collection[bytes]) -> list[Delivery]:
        """Take up all rows of the lane, and return the deliveries in memory that may start now.

        The deliveries with the ids `elsewhere` are left out, because their rows are out of date.
        """
        for row in rows:
            line = self._lines.get(_key_of(row.order_key, row.position))
            if row.id not in elsewhere and (line is None or row.position not in line.places):
                self.row(row)
        self.is_complete = True
        return [first for key, line in self._lines.items() if (first := self._next(key, line)) is not None]

    def bring_forward(self, due_ms: int) -> None:
        """Note that all rows are due at a time, unless they are due earlier."""
        for key, line in self._lines.items():
            for position in [each for each, place in line.places.items() if place > due_ms]:
                line.places[position] = due_ms
                if line.head() == position:
                    heapq.heappush(self._due, (due_ms, position, key))

    def forget_rows(self) -> None:
        """Forget all rows, because their positions have changed; `load` takes them up again."""
        self.is_complete = False
        for key, line in list(self._lines.items()):
            for position in [each for each, place in line.places.items() if place >= 0]:
                del line.places[position], line.ids[position]
                self._count -= 1
            if not line.places:
                del self._lines[key]


def _first_rows(key: _Key, line: _Line, now_ms: int, through: int, limit: int) -> Iterator[WaitingRow]:
    for position in heapq.nsmallest(limit, line.places):
        due_ms = line.places[position]
        if not 0 <= due_ms <= now_ms or position > through:
            return
        yield WaitingRow(line.ids[position], key if isinstance(key, bytes) else b"", position, due_ms)


def _key_of(order_key: bytes, position: int) -> _Key:
    return order_key or position
