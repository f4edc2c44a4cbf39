"""Past starts: the subscriptions that begin with events from before their creation, and how far each of them is.

registry_watch → [past_starts] → start_finder → [past_starts] → lane, recorder; lane_modes → [past_starts]

Such a lane begins behind: it owes a range from its start on, and joins routing once it has caught up with the log.

Law 1: a start happens once. The flush that writes its range writes its job too, and nothing of the range is sent before.
Law 2: routing passes the subscription by from the moment when this worker first knows it, so that its range has all of its events.
Law 3: until the range is in the ledger, `lowest` keeps the log from dropping what the range will owe.
"""

import asyncio
from collections.abc import Iterable

from services.delivery.dispatch.dispatcher import Dispatcher
from services.delivery.dispatch.fair_rounds import Work
from services.delivery.dispatch.owed_ranges import begin, next_range
from services.delivery.ledger.rows import JobKey, JobRow
from services.delivery.model import OwedRange
from services.delivery.request.request_settings import Subscription
from services.delivery.subscriptions.replica import Replica
from services.delivery.worker.unflushed_deliveries import UnflushedDeliveries
from services.runtime.logs import logger

JOB_ID = "start"
RUNNING, FINISHED, CANCELLED, DELETED = "running", "finished", "cancelled", "deleted"


class PastStarts:
    """The past starts of a worker's subscriptions."""

    def __init__(self, dispatcher: Dispatcher, replica: Replica, unflushed: UnflushedDeliveries) -> None:
        self._dispatcher = dispatcher
        self._lanes = dispatcher.lanes
        self._replica = replica
        self._unflushed = unflushed
        self.to_find: asyncio.Queue[str] = asyncio.Queue()  # bounded: by the changes of subscriptions whose places are not found
        """The subscriptions whose places in the log are to be found."""
        self._jobs: dict[str, JobRow] = {}
        self._unfound: dict[str, int] = {}
        """What was routed when a subscription was first seen; its place in the log is not found yet."""
        self._found: dict[str, int] = {}
        """The places that are found and not recorded yet: a range begins at most where everything is recorded."""
        self._unwritten: dict[str, int] = {}
        """Where ranges begin that are not in the ledger yet."""

    def resume(self, jobs: Iterable[JobRow]) -> None:
        """Take over the starts that the ledger knows, before any subscription is seen."""
        self._jobs = {row.subscription_id: row for row in jobs if row.job_id == JOB_ID}

    def see(self, subscription_id: str, routed: int) -> None:
        """Begin the start of a subscription that is new or changed, if it has one that has not begun.

        Everything up to the position `routed` is wholly routed, and a caller who has created the subscription has no answer yet. Hence
        every event that is accepted after that answer lies above.
        """
        subscription = self._replica.get(subscription_id)
        if subscription is None or subscription.start_ms is None or not self._replica.wanted(subscription_id):
            return
        if subscription_id not in self._jobs and subscription_id not in self._unfound and subscription_id not in self._found:
            self._replica.router.pass_by(subscription_id)
            self._unfound[subscription_id] = routed
            self.to_find.put_nowait(subscription_id)

    def unfound(self, subscription_id: str) -> tuple[Subscription, int] | None:
        """Return a subscription whose place is to be found, and what was routed when it was first seen; None if it is not to be found."""
        subscription = self._replica.get(subscription_id)
        if subscription is None or subscription_id not in self._unfound:
            return None
        return subscription, self._unfound[subscription_id]

    def found(self, subscription_id: str, at: int, recorded: int) -> None:
        """Let a subscription start with the events above a position, as soon as everything up to there is recorded."""
        if self._unfound.pop(subscription_id, None) is not None:
            self._found[subscription_id] = at
            self.recorded(recorded)
            if self._found and self._unflushed.floors.slots:
                self._unflushed.flush_wanted.set()

    @property
    def awaits_progress(self) -> bool:
        """Whether a place is found that is not recorded yet."""
        return bool(self._found)

    def recorded(self, through: int) -> None:
        """Begin the ranges whose places are recorded by now."""
        for subscription_id in [each for each, at in self._found.items() if at <= through]:
            self._begin(subscription_id, self._found.pop(subscription_id))

    def _begin(self, subscription_id: str, at: int) -> None:
        lane = self._lanes.lane(subscription_id)
        owed = next_range(subscription_id, lane.ranges, self._lanes.now().unix_ms, lane.consumer.id)
        begin(owed, at + 1)
        # It is read once it is in the ledger.
        owed.begun = owed.is_start = owed.is_waiting = True
        lane.ranges.append(owed)
        lane.work = Work.CATCH_UP
        self._unwritten[subscription_id] = at
        self._write(JobRow(subscription_id, JOB_ID, RUNNING, (at,), None, 0, 0, 0))
        self._unflushed.add_range(owed)

    def _write(self, row: JobRow) -> None:
        self._jobs[row.subscription_id] = row
        self._unflushed.add_job(JobKey(row.subscription_id, row.job_id), row)

    def lowest(self) -> int | None:
        """Return the position above which starts need events that the ledger does not show as owed yet; None if there are none."""
        if self._unfound:
            return 0  # an earlier process may have recorded events since the creation, and not have written the range
        return min((*self._found.values(), *self._unwritten.values()), default=None)

    # What becomes of them

    def moved(self, owed: OwedRange, handed: int, *, is_over: bool) -> None:
        """Note, while a flush is gathered, that it writes `handed` deliveries of a start's range, and whether the range is over then."""
        row = self._jobs[owed.subscription_id]
        if row.state != RUNNING:
            return
        state = RUNNING if not is_over else FINISHED if owed.cancelled_through is None else CANCELLED
        through = row.through if owed.until is None else (owed.until,)
        self._write(row._replace(state=state, through=through, handed=row.handed + handed))

    def flushed(self, owed: OwedRange) -> None:
        """Note that a start's range is in the ledger, or is over."""
        self._unwritten.pop(owed.subscription_id, None)
        if owed.written is None:
            row = self._jobs[owed.subscription_id]
            logger().info("subscription.start_over", subscription=row.subscription_id, state=row.state, deliveries=row.handed)

    def cancel(self, subscription_id: str, recorded: int) -> None:
        """End the start of a subscription that is deleted or off.

        The job of a deleted subscription is kept as long as the log has its events, because an older copy of the registry may bring the
        subscription back.
        """
        for places in (self._unfound, self._found, self._unwritten):
            places.pop(subscription_id, None)
        row = self._jobs.get(subscription_id)
        if row is not None and row.state != DELETED and self._replica.get(subscription_id) is None:
            self._write(row._replace(state=DELETED, through=(recorded,)))

    def forget_deleted(self, first_available: int) -> None:
        """Forget the jobs of deleted subscriptions whose events the log has dropped, unless an older registry has brought them back."""
        gone = [row for row in self._jobs.values() if row.state == DELETED and row.through and row.through[0] < first_available]
        for row in gone:
            if self._replica.get(row.subscription_id) is not None:
                continue
            del self._jobs[row.subscription_id]
            self._unflushed.add_job(JobKey(row.subscription_id, row.job_id), None)

    # After a restart or a repair

    def owes(self, owed: OwedRange) -> bool:
        """Return whether the first range that the ledger has of a lane is the range of its start."""
        row = self._jobs.get(owed.subscription_id)
        return row is not None and row.state == RUNNING

    def taken_up(self, subscription_ids: set[str], recorded: int) -> None:
        """Note which lanes still owe the range of their start, after all ranges are taken up."""
        for row in list(self._jobs.values()):
            if self._replica.get(row.subscription_id) is None:
                self.cancel(row.subscription_id, recorded)
            elif row.state == RUNNING and row.subscription_id not in subscription_ids:
                self._write(row._replace(state=FINISHED))

    def find_again(self, recorded: int) -> None:
        """Find the places again that are not in the ledger yet, because a repair has changed positions."""
        for subscription_id in (*self._unfound, *self._found):
            self._replica.router.pass_by(subscription_id)
            self._unfound[subscription_id] = recorded
            self.to_find.put_nowait(subscription_id)
        self._found.clear()
        self._unwritten.clear()
