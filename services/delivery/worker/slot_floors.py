"""Slot floors: keep a worker from routing again what another worker has recorded of its slots.

ledger → [slot_floors] → log_follower, lane_modes, recorder, retention_loop, lag

After a cut of the ledgers, the slots of one worker may stand at different places. The worker reads from the lowest of them, its main place.
Each group of slots that stands further has its own place as a floor. The ledger has every match of such a slot up to the floor already, so
routing passes these matches by. Once the main place is recorded up to a floor, the floor's slots join the main place.

Law 1: no match at or below a floor is routed again, and every match above it is.
Law 2: a floor is gone in the same flush that records the main place up to it. Without floors, routing costs nothing more.
Law 3: the log is told the place of each slot as it stands, and never a place of other slots.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from services.delivery.dispatch.owed_ranges import last_passed
from services.delivery.ledger.protocol import GroupCursor, ShardCursor, rank, recorded_position
from services.delivery.request.request_settings import Subscription
from services.eventlog.record import ShardPosition
from services.runtime.ids import SLOTS, slot_of


class Floor(NamedTuple):
    """A group of slots that stands further than the main place."""

    group_id: int
    slots: tuple[int, ...]
    cursor: ShardCursor
    """A ledger in a file has one shard."""

    @property
    def place(self) -> ShardPosition:
        """The last event that is wholly recorded for these slots."""
        return recorded_position(self.cursor)


class SlotFloors:
    """The floors of one worker."""

    def __init__(self) -> None:
        """Begin with all slots at the main place."""
        self.of_slot: dict[int, ShardCursor] = {}
        """The floor of each slot that has one. Routing looks only whether there are any."""
        self.main_slots: tuple[int, ...] = ()
        """The slots at the main place; empty: all slots that there are."""
        self.slots: tuple[int, ...] = ()
        """The slots of the worker; empty: all."""
        self._floors: list[Floor] = []

    def take_over(self, groups: Sequence[GroupCursor], slots: Sequence[Sequence[int]]) -> None:
        """Take over the groups of a ledger, the first group first, with the slots of each."""
        self.slots = _or_all(slot for some in slots for slot in some)
        self._set([Floor(each.group_id, tuple(some), each.shards[0]) for each, some in zip(groups[1:], slots[1:], strict=True)])

    def _set(self, floors: list[Floor]) -> None:
        self._floors = sorted(floors, key=lambda floor: rank(floor.cursor))
        self.of_slot = {slot: floor.cursor for floor in self._floors for slot in floor.slots}
        self.main_slots = _or_all(slot for slot in self.slots or range(SLOTS) if slot not in self.of_slot)

    def __iter__(self) -> Iterator[Floor]:
        """Iterate over the floors, the lowest first."""
        return iter(self._floors)

    def above(self, matches: Sequence[Subscription], position: int) -> tuple[Subscription, ...]:
        """Return the matches of the event at a position that are not recorded yet."""
        return tuple([each for each in matches if self.passed(each.id, 0) < position])

    def passed(self, subscription_id: str, position: int) -> int:
        """Return up to which position a subscription is routed, if subscriptions without a floor are routed up to `position`."""
        floor = self.of_slot.get(slot_of(subscription_id)) if self.of_slot else None
        return position if floor is None else max(position, last_passed(floor.position, floor.through, subscription_id))

    def reached_at(self, position: int, through: str) -> list[int]:
        """Return the groups that join when a flush records the main place up to an event, in part if `through` names a subscription."""
        here = rank(ShardCursor(0, position, "", through))
        return [floor.group_id for floor in self._floors if rank(floor.cursor) <= here]

    def repaired(self, groups: Sequence[GroupCursor]) -> None:
        """Note where groups stand after a repair; all others have joined the main place."""
        at = {each.group_id: each.shards[0] for each in groups}
        self._set([floor._replace(cursor=at[floor.group_id]) for floor in self._floors if floor.group_id in at])

    def join(self, group_ids: Sequence[int]) -> None:
        """Note that a flush has let groups join the main place."""
        self._set([floor for floor in self._floors if floor.group_id not in group_ids])


def _or_all(slots: Iterator[int]) -> tuple[int, ...]:
    """Return slots in order; none if they are all."""
    found = tuple(sorted(slots))
    return () if len(found) == SLOTS else found
