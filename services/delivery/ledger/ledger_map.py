"""Ledger map: which ledger file owns which slots, and whether the files that are there fit together.

ledger_cut → [ledger_map]

The first file holds the map. The rows of a slot in a file count only if the map says that the file owns the slot. Each file notes the
generation of the map that it was last brought in line with.

Law 1: pure.
Law 2: a start uses the files only if all slots are there, each in one file, and all files are of one generation.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from services.delivery.ledger.protocol import FIRST_GROUP, GroupCursor, rank
from services.runtime.ids import SLOTS


class LedgerMap(NamedTuple):
    """How the slots are divided among the files."""

    generation: int
    """It grows with each start of several workers, and with each cut. 0: there has never been more than one worker."""
    workers: int
    """How many files own slots: those with the numbers below."""
    is_settled: bool = True
    """Whether all files are in line with this map. If not, the next start finishes that."""


ONE_WORKER = LedgerMap(0, 1)
"""The map of a ledger that holds none."""


class FileState(NamedTuple):
    """What a ledger file says of itself."""

    generation: int | None
    """The generation of the map that it is in line with; None: it notes none."""
    arriving: int | None
    """The generation of a cut that has copied into it all that it will own; None: no such cut is under way."""
    slots: frozenset[int]
    log_id: str
    """The log that it follows; empty: none yet."""


def slots_of(number: int, workers: int) -> range:
    """Return the slots that a file owns; a file with a number beyond the workers owns none."""
    return range(SLOTS * number // workers, SLOTS * (number + 1) // workers) if number < workers else range(0)


def why_unusable(ledgers: LedgerMap, files: Mapping[int, FileState]) -> tuple[int, str] | None:
    """Return the number of a file that does not fit the others, and why in a clause; None if all files fit together."""
    for number in range(ledgers.workers):
        if number not in files:
            owned = slots_of(number, ledgers.workers)
            return number, f"is missing, and it has the deliveries of slots {owned[0]} to {owned[-1]}"
    for number, state in files.items():
        if (state.generation or 0) > ledgers.generation:
            return 0, f"is an older copy than the ledger file {number}"
    for number in range(ledgers.workers):
        if not _is_in_line(files[number], ledgers):
            return number, "is an older copy than the other ledger files"
        if ledgers.is_settled and not files[number].slots.issuperset(slots_of(number, ledgers.workers)):
            return number, "does not have the slots that it must have"
    return _why_another_log([(number, files[number].log_id) for number in range(ledgers.workers)])


def _is_in_line(state: FileState, ledgers: LedgerMap) -> bool:
    if (state.generation or 0) == ledgers.generation:
        return True
    return not ledgers.is_settled and state.arriving == ledgers.generation


def _why_another_log(log_ids: Sequence[tuple[int, str]]) -> tuple[int, str] | None:
    known = [log_id for _, log_id in log_ids if log_id]
    for number, log_id in log_ids:
        if log_id and log_id != known[0]:
            return number, "follows another log than the other ledger files"
    return None


def arranged(groups: Collection[tuple[GroupCursor, Collection[int]]]) -> list[tuple[GroupCursor, list[int]]]:
    """Merge the groups of a file: one group for each place, the lowest first, and no group without slots."""
    places: dict[tuple[tuple[int, bool, str], ...], tuple[GroupCursor, list[int]]] = {}
    for cursor, slots in groups:
        if slots:
            key = tuple(rank(shard) for shard in cursor.shards)
            places.setdefault(key, (cursor, []))[1].extend(slots)
    ordered = [places[key] for key in sorted(places)]
    return [(GroupCursor(FIRST_GROUP + number, cursor.shards), sorted(slots)) for number, (cursor, slots) in enumerate(ordered)]
