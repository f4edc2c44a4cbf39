"""Ledger map: which file owns which slots, and which files fit together."""

import pytest

from services.delivery.ledger.ledger_map import ONE_WORKER, FileState, LedgerMap, arranged, slots_of, why_unusable
from services.delivery.ledger.protocol import GroupCursor
from services.runtime.ids import WORKERS_MAX
from tests.delivery.ledger.deliveries import cursor_at


@pytest.mark.parametrize("workers", range(1, WORKERS_MAX + 1))
def test_each_slot_has_one_owner_and_no_worker_has_many_more_than_another(workers: int) -> None:
    owned = [slots_of(number, workers) for number in range(workers)]
    assert [slot for slots in owned for slot in slots] == list(range(256))
    assert max(map(len, owned)) - min(map(len, owned)) <= 1
    assert len(slots_of(workers, workers)) == 0


def state(number: int, workers: int, generation: int | None = 5, arriving: int | None = None, log_id: str = "log") -> FileState:
    return FileState(generation, arriving, frozenset(slots_of(number, workers)), log_id)


SETTLED, UNSETTLED = LedgerMap(5, 2), LedgerMap(5, 2, is_settled=False)


def test_files_of_one_generation_with_all_slots_fit() -> None:
    files = {0: state(0, 2), 1: state(1, 2)}
    assert why_unusable(SETTLED, files) is None
    # A former file may be of an older generation, and a file that a cut has made and not filled notes none.
    assert why_unusable(SETTLED, files | {2: state(2, 2, generation=3), 3: state(3, 2, generation=None)}) is None
    assert why_unusable(ONE_WORKER, {0: state(0, 1, generation=None, log_id="")}) is None


def test_a_file_that_has_all_it_will_own_fits_a_map_that_is_committed_and_not_settled() -> None:
    arrived = state(1, 2, generation=4, arriving=5)
    assert why_unusable(UNSETTLED, {0: state(0, 2), 1: arrived}) is None
    assert why_unusable(SETTLED, {0: state(0, 2), 1: arrived}) == (1, "is an older copy than the other ledger files")
    older = state(1, 2, generation=3, arriving=4)
    assert why_unusable(UNSETTLED, {0: state(0, 2), 1: older}) == (1, "is an older copy than the other ledger files")


def test_slots_are_looked_at_once_the_map_is_settled() -> None:
    files = {0: state(0, 2), 1: state(1, 2)._replace(slots=frozenset(range(129, 256)))}
    assert why_unusable(SETTLED, files) == (1, "does not have the slots that it must have")
    assert why_unusable(UNSETTLED, files) is None


@pytest.mark.parametrize(
    ("files", "number", "why"),
    [
        ({0: state(0, 2)}, 1, "is missing, and it has the deliveries of slots 128 to 255"),
        ({0: state(0, 2), 1: state(1, 2, generation=6)}, 0, "is an older copy than the ledger file 1"),
        ({0: state(0, 2), 1: state(1, 2), 3: state(3, 2, generation=6)}, 0, "is an older copy than the ledger file 3"),
        ({0: state(0, 2), 1: state(1, 2, generation=None)}, 1, "is an older copy than the other ledger files"),
        ({0: state(0, 2), 1: state(1, 2, log_id="another")}, 1, "follows another log than the other ledger files"),
    ],
)
def test_a_file_that_does_not_fit_is_named(files: dict[int, FileState], number: int, why: str) -> None:
    assert why_unusable(SETTLED, files) == (number, why)


def test_a_file_that_follows_no_log_yet_fits_any() -> None:
    assert why_unusable(SETTLED, {0: state(0, 2, log_id=""), 1: state(1, 2)}) is None


def test_groups_are_arranged_by_place_and_one_place_is_one_group() -> None:
    """A group that has an event in part stands before one that has it whole, and the further the part goes, the further it stands."""
    places = [(9, ""), (7, "sub_b"), (7, ""), (7, "sub_a"), (9, "")]
    groups = [(GroupCursor(number, cursor_at(at, "evt_x", through).shards), [number]) for number, (at, through) in enumerate(places, 1)]
    found = arranged([*groups, (cursor_at(3), ())])
    assert [(cursor.group_id, cursor.shards[0].position, cursor.shards[0].through, slots) for cursor, slots in found] == [
        (1, 7, "sub_a", [4]),
        (2, 7, "sub_b", [2]),
        (3, 7, "", [3]),
        (4, 9, "", [1, 5]),
    ]
