"""Ledger, over every engine: slots that stand at different places, and how they come together."""

import pytest

from services.delivery.errors import LedgerInvariantError
from services.delivery.ledger.protocol import Flush, GroupCursor, Ledger
from services.delivery.ledger.rows import EndedRow, RangeRow
from services.delivery.model import State
from services.eventlog.record import ShardPosition
from tests.delivery.ledger.deliveries import NOW_MS, cursor_at
from tests.delivery.ledger.stores import LedgerStore

ALL = tuple(range(256))
HIGH, LOW = ALL[128:], ALL[:128]


def group_at(group_id: int, position: int, event_id: str = "", through: str = "") -> GroupCursor:
    return GroupCursor(group_id, cursor_at(position, event_id, through).shards)


@pytest.fixture
async def split(store: LedgerStore, ledger: Ledger) -> Ledger:
    """A ledger whose upper slots are recorded up to the middle of event 20, and its lower slots up to event 10."""
    await ledger.flush(Flush(cursors=[cursor_at(10, "evt_j")]))
    store.split(group_at(2, 20, "evt_t", "sub_t"), HIGH)
    return ledger


async def test_a_new_ledger_has_all_slots_in_its_first_group(ledger: Ledger) -> None:
    takeover = await ledger.take_lease("one")
    assert (takeover.groups, takeover.slots) == ([cursor_at(0)], (ALL,))


async def test_a_takeover_has_the_groups_and_the_slots_of_each(split: Ledger) -> None:
    """The place up to which everything is recorded is the lowest."""
    takeover = await split.take_lease("one")
    assert takeover.groups == [cursor_at(10, "evt_j"), group_at(2, 20, "evt_t", "sub_t")]
    assert takeover.slots == (LOW, HIGH)
    assert await split.recorded_place() == [ShardPosition(0, 10, "evt_j")]


async def test_a_flush_moves_the_group_that_it_names(split: Ledger) -> None:
    await split.flush(Flush(cursors=[cursor_at(12, "evt_l"), group_at(2, 20, "evt_t")]))
    assert (await split.take_lease("one")).groups == [cursor_at(12, "evt_l"), group_at(2, 20, "evt_t")]


@pytest.mark.parametrize("reached", [("evt_t", "sub_t"), ("evt_t", "sub_u"), ("evt_t", "")])
async def test_a_group_joins_the_first_one_in_the_flush_that_reaches_it(split: Ledger, reached: tuple[str, str]) -> None:
    """The same flush again changes nothing."""
    flush = Flush(cursors=[cursor_at(20, *reached)], joined=[2])
    for _ in range(2):
        await split.flush(flush)
        takeover = await split.take_lease("one")
        assert (takeover.groups, takeover.slots) == ([cursor_at(20, *reached)], (ALL,))


@pytest.mark.parametrize(("position", "through"), [(19, ""), (20, "sub_s")])
async def test_a_group_that_is_not_reached_does_not_join_and_nothing_of_the_flush_is_written(
    split: Ledger, position: int, through: str
) -> None:
    with pytest.raises(LedgerInvariantError, match="group 2 stands at"):
        await split.flush(Flush(cursors=[cursor_at(position, "evt_x", through)], joined=[2]))
    takeover = await split.take_lease("one")
    assert (takeover.groups[0], takeover.slots) == (cursor_at(10, "evt_j"), (LOW, HIGH))


async def test_after_a_repair_each_range_fits_the_cursor_of_its_slot(split: Ledger) -> None:
    """Ranges of slots that stand further keep what the log holds, although the first group stands lower."""
    low, high = (RangeRow("sub_" + digit * 32, "", 0, (15,), None, NOW_MS) for digit in "1f")
    ended = EndedRow("sub_" + "f" * 32, "", State.CANCELLED, (12,), (19,), 1, NOW_MS)
    await split.flush(Flush(ranges=[low, high], ended=[ended]))
    await split.repair("a log", [cursor_at(10, "evt_j"), group_at(2, 18, "evt_r")], {0: 18})
    assert [(row.subscription_id, row.at) for row in await split.ranges()] == [(low.subscription_id, (10,)), (high.subscription_id, (15,))]
    assert [row.through for row in await split.ended(ended.subscription_id)] == [(18,)]
    takeover = await split.take_lease("one")
    assert (takeover.groups, takeover.slots) == ([cursor_at(10, "evt_j"), group_at(2, 18, "evt_r")], (LOW, HIGH))


async def test_a_repair_lets_the_groups_join_that_it_does_not_name(split: Ledger) -> None:
    await split.repair("a log", [cursor_at(30, "evt_z")], {0: 30})
    takeover = await split.take_lease("one")
    assert (takeover.groups, takeover.slots) == ([cursor_at(30, "evt_z")], (ALL,))
