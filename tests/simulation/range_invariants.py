"""Range invariants: where each event stands for each subscription after every commit (L1 to L4, L10), and what the log may drop (L11).

L1: each recorded event is, for each subscription that wants it, in exactly one place: an unfinished row, a finished row, an owed range, or
an ended range; or it is set aside. L2: a range begins at most where its group is recorded. L3: a range has no row inside it. L4: the
begin of a range only grows, and its end is set once. L10: a start in the past happens once. L11: the log holds every event of an owed
range, and of each unfinished row of which no copy is kept.

Law: every check reads the ledger's tables, and nothing that delivery has in memory.
"""

import json
import traceback
from dataclasses import replace
from typing import NamedTuple

from services.delivery.ledger.protocol import ShardCursor, recorded_position
from services.delivery.model import delivery_id
from services.delivery.worker.past_starts import RUNNING
from tests.simulation.invariants import Published, judged
from tests.simulation.ledger_template import TemplateStore
from tests.simulation.world import World

_RANGES_MAX = 2
_EVER = 1 << 62
_INSIDE = (
    "SELECT rows.subscription_id, rows.position FROM {table} AS rows JOIN owed USING (subscription_id, job_id)"
    " WHERE rows.position > json_extract(owed.at, '$[0]')"
    " AND rows.position <= coalesce(json_extract(owed.until, '$[0]'), 1 << 62)"
)


class _Range(NamedTuple):
    """An owed range of the log's only shard."""

    at: int
    until: int

    def __contains__(self, position: object) -> bool:
        """Return whether a position lies in the range."""
        return isinstance(position, int) and self.at < position <= self.until


class RangeInvariants:
    """Checks a world's ledger after each of its commits; what is broken is added to the world's violations."""

    def __init__(self, world: World, store: TemplateStore) -> None:
        self._world = world
        self._store = store
        self._recorded = 0
        self._started: dict[str, tuple[int, ...]] = {}
        """The starts in the past that the ledger has known, each with the place where it began."""
        self._before: dict[tuple[str, str, int], _Range] = {}
        self._unfinished: dict[tuple[str, int], Published] = {}
        """The events that a subscription must get and that have no end yet, by subscription and position."""

    def after_commit(self) -> None:
        """Check L1 to L4, and L10."""
        if not self._store.is_open:
            return  # the last flush of a worker that is stopping; the next commit is checked
        try:
            self._check_commit()
        except Exception:  # noqa: BLE001 - it would end in the loop's log
            self._violated(traceback.format_exc())

    def _check_commit(self) -> None:
        [cursor] = self._store.cursor().shards
        owed = self._owed()
        self._check_ranges(cursor, owed)
        rows = {
            (subscription_id, position)
            for subscription_id, position in self._store.rows("SELECT subscription_id, position FROM open WHERE job_id = ''")
        }
        self._add_recorded(recorded_position(cursor).position)
        self._check_starts({key[0] for key in owed})
        ranges: dict[str, list[_Range]] = {}
        for (subscription_id, job_id, _), span in owed.items():
            if not job_id:
                ranges.setdefault(subscription_id, []).append(span)
        for subscription_id, after, through in self._store.rows("SELECT subscription_id, after, through FROM ended WHERE job_id = ''"):
            ranges.setdefault(subscription_id, []).append(_Range(json.loads(after)[0], json.loads(through)[0]))
        for pair, event in list(self._unfinished.items()):
            places = (pair in rows) + sum(pair[1] in span for span in ranges.get(pair[0], ()))
            if places > 1:
                self._violated(f"L1: event {pair[1]} is in {places} places for {pair[0]}")
            elif not places:
                self._check_finished(pair, event)

    def after_trim(self) -> None:
        """Check L11."""
        held, owed = self._world.log.records, self._owed()
        for (subscription_id, _, _), span in owed.items():
            lost = [position for position in range(span.at + 1, min(span.until, self._world.log.head) + 1) if position not in held]
            if lost:
                self._violated(f"L11: the log has dropped {lost[:3]}, which are owed to {subscription_id}")
        uncopied = "SELECT position FROM open WHERE NOT EXISTS (SELECT 1 FROM payloads WHERE payloads.position = open.position)"
        if lost := [position for (position,) in self._store.rows(uncopied) if position not in held]:
            self._violated(f"L11: the log has dropped {lost[:3]}, which have unfinished rows and no copy")

    def _owed(self) -> dict[tuple[str, str, int], _Range]:
        rows = self._store.rows("SELECT subscription_id, job_id, seq, at, until FROM owed")
        return {(id_, job, seq): _Range(json.loads(at)[0], json.loads(until)[0] if until else _EVER) for id_, job, seq, at, until in rows}

    def _check_ranges(self, cursor: ShardCursor, owed: dict[tuple[str, str, int], _Range]) -> None:
        own = [key[0] for key in owed if not key[1]]
        for key, span in owed.items():
            if span.at > cursor.position and span.at > (recorded := self._store.position_of(key[0])):
                self._violated(f"L2: the range {key} is at {span.at}, and {recorded} is recorded")
            before = self._before.get(key)
            if before is not None and (span.at < before.at or before.until not in {span.until, _EVER}):
                self._violated(f"L4: the range {key} was {before} and is {span}")
            if own.count(key[0]) > _RANGES_MAX:
                self._violated(f"{key[0]} has more than two ranges")
        self._before = owed
        if owed:
            for table in ("open", *self._store.day_tables()):
                for subscription_id, position in self._store.rows(_INSIDE.format(table=table)):
                    self._violated(f"L3: event {position} has a row in {table} within an owed range of {subscription_id}")

    def _add_recorded(self, recorded: int) -> None:
        """Add the events that are recorded since the last commit."""
        for each in self._world.published[self._recorded : recorded]:
            for subscription_id, [created, *_] in self._world.versions.items():
                is_to_start = created.wish is not None and created.wish.start_ms is not None and subscription_id not in self._started
                if not is_to_start and self._must(each, subscription_id):
                    self._unfinished[subscription_id, each.record.position] = each
        self._recorded = max(self._recorded, recorded)

    def _check_starts(self, owing: set[str]) -> None:
        """Check L10, and add the past events of a subscription once its start is in the ledger."""
        jobs = {row.subscription_id: row for row in self._store.jobs()}
        for subscription_id, after in self._started.items():
            if subscription_id in self._world.registry.wishes and subscription_id not in jobs:
                self._violated(f"L10: the start of {subscription_id} is forgotten")
            if subscription_id in jobs and jobs[subscription_id].after != after:
                self._violated(f"L10: {subscription_id} starts again")
        for subscription_id in jobs.keys() - self._started.keys():
            self._started[subscription_id] = jobs[subscription_id].after
            if jobs[subscription_id].state == RUNNING and subscription_id not in owing:
                self._violated(f"L10: the start of {subscription_id} has no range")
            for each in self._world.published[: self._recorded]:
                if subscription_id not in each.dropped_for and self._must(each, subscription_id):
                    self._unfinished[subscription_id, each.record.position] = each

    def _must(self, event: Published, subscription_id: str) -> bool:
        """Return whether no version of a subscription up to now lets it go without an event."""
        now = replace(event, routed_by=self._world.loop.time())
        return judged(now, self._world.versions[subscription_id])[0]

    def _check_finished(self, pair: tuple[str, int], event: Published) -> None:
        event_id = event.record.event_id
        has_end = self._store.has_done_row(delivery_id(event_id, pair[0])) or event_id in self._store.set_aside()
        if not has_end and self._must(event, pair[0]):
            self._violated(f"L1: event {pair[1]} is recorded and in no place for {pair[0]}")
        del self._unfinished[pair]

    def _violated(self, law: str) -> None:
        self._world.endpoints.violations.append(law)
