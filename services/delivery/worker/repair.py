"""Repair: resumes a cursor group that is stopped because log and ledger do not fit together.

event log, ledger → [repair] → log_follower

Law 1: by default no event that the ledger has routed is routed again, and no event is left out. Event ids grow with time, also in a log
that was restored or made anew, so an event with a later id than the ledger's cursor was never routed.
Law 2: rows and copies of events that the log no longer holds give up their positions, because other events have or will have them.
"""

import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from typing import NamedTuple

from services.delivery.ledger.protocol import FIRST_GROUP, GroupCursor, Ledger, ShardCursor, rank, recorded_position
from services.delivery.worker.lane_modes import LaneModes
from services.delivery.worker.log_follower import LogFollower
from services.delivery.worker.recorder import Recorder
from services.delivery.worker.retention_loop import RetentionLoop
from services.eventlog.protocol import EventLogReader
from services.eventlog.record import ResumePoint, ShardPosition, SlotProgress
from services.runtime.ids import is_id
from services.runtime.logs import logger


@dataclass(frozen=True, slots=True)
class RepairReport:
    """The effect of a repair, done or planned."""

    stopped: str
    """That routing is stopped and why, in a sentence; empty if it is not stopped."""
    routed: int = 0
    """How many events are routed after the repair."""
    repeated: int = 0
    """How many of those were routed before."""
    skipped: int = 0
    """How many events that were never routed are left out."""
    lost: int = 0
    """How many unfinished deliveries have an event that neither log nor ledger holds."""


class Repair:
    """Repairs the routing of one worker."""

    def __init__(
        self,
        log: EventLogReader,
        ledger: Ledger,
        follower: LogFollower,
        recorder: Recorder,
        lane_modes: LaneModes,
        retention: RetentionLoop,
    ) -> None:
        self._log = log
        self._ledger = ledger
        self._follower = follower
        self._recorder = recorder
        self._lane_modes = lane_modes
        self._retention = retention
        self._one = asyncio.Lock()

    async def run(self, from_ms: int | None, *, dry_run: bool) -> RepairReport:
        """Resume routing if it is stopped, or with `dry_run` return what a repair would do.

        If `from_ms` is given, routing resumes with the events accepted from then on, in ms since 1970; else after the ledger's cursor.

        Raises `EventLogError` while the log cannot be read, `LedgerFullError` while the ledger cannot be written.
        """
        async with self._one, self._retention.step_lock:
            why = self._follower.stopped.why()
            if why is None:
                return RepairReport("")
            await self._recorder.wait_until_recorded()
            plan = await self._plan(from_ms)
            repaired = replace(plan.report, stopped=why, lost=await self._ledger.count_lost(plan.held_through))
            if not dry_run:
                await self._carry_out(plan)
                logger().warning("routing.repaired", routed=repaired.routed, repeated=repaired.repeated, skipped=repaired.skipped)
            return repaired

    async def _plan(self, from_ms: int | None) -> "_Plan":
        """Find where the worker resumes: all slots at the given time, or without one each group after its own last event."""
        floors, stopped = self._lane_modes.floors, [ShardCursor(*astuple(each)) for each in self._follower.progress]
        log_id, known = await self._find(stopped, floors.main_slots)
        is_same_log = self._follower.log_id == log_id
        held_through = {each.shard: here.position.position if is_same_log else 0 for each, here in zip(stopped, known, strict=True)}
        chosen, others = known, list[GroupCursor]()
        if from_ms is not None:
            before = f"evt_{max(0, from_ms):012x}{0:020x}"
            _, chosen = await self._log.resume_points([ShardPosition(each.shard, 0, before) for each in stopped], floors.slots)
        first = tuple(itertools.starmap(_cursor_to_resume, zip(stopped, chosen, strict=True)))
        for floor in floors:
            _, [point] = await self._find([floor.cursor], floor.slots)
            shard, resumed = floor.cursor.shard, _cursor_to_resume(floor.cursor, point)
            held_through[shard] = max(held_through[shard], point.position.position if is_same_log else 0)
            if from_ms is None and rank(resumed) > rank(first[0]):
                others.append(GroupCursor(floor.group_id, (resumed,)))
        return _Plan(log_id, [GroupCursor(FIRST_GROUP, first), *others], held_through, _count(known, chosen))

    async def _find(self, cursors: Sequence[ShardCursor], slots: Sequence[int]) -> tuple[str, list[ResumePoint]]:
        return await self._log.resume_points([ShardPosition(each.shard, 0, _known_id(each.event_id)) for each in cursors], slots)

    async def _carry_out(self, plan: "_Plan") -> None:
        floors, first = self._lane_modes.floors, plan.groups[0]
        self._lane_modes.write_handed()
        await self._recorder.wait_for_flush()
        await self._ledger.repair(plan.log_id, plan.groups, plan.held_through)
        floors.repaired(plan.groups[1:])
        self._lane_modes.reload(await self._ledger.ranges(), first.shards[0])
        place = [recorded_position(each) for each in first.shards]
        progress = [SlotProgress(each.slots, [each.place], [each.place]) for each in floors]
        await self._log.rewind([SlotProgress(floors.main_slots, place, place), *progress])
        self._retention.forget_copied()
        self._follower.resume(first, plan.log_id)


class _Plan(NamedTuple):
    """What a repair does."""

    log_id: str
    groups: list[GroupCursor]
    """Where the groups resume, the first group first. The others join it."""
    held_through: dict[int, int]
    report: RepairReport


def _known_id(event_id: str) -> str:
    return event_id if is_id(event_id, "evt") else ""


def _cursor_to_resume(stopped: ShardCursor, point: ResumePoint) -> ShardCursor:
    """Return where a shard resumes: in the middle of a fan-out if the log still holds that event."""
    _, position, event_id, _ = point.position
    return ShardCursor(stopped.shard, position, event_id, stopped.through if event_id and event_id == stopped.event_id else "")


def _count(known: Sequence[ResumePoint], chosen: Sequence[ResumePoint]) -> RepairReport:
    routed = repeated = skipped = 0
    for by_ledger, point in zip(known, chosen, strict=True):
        new = min(by_ledger.following, by_ledger.unreleased)
        routed += point.following
        repeated += max(0, point.following - new)
        skipped += max(0, new - point.following)
    return RepairReport("", routed, repeated, skipped)
