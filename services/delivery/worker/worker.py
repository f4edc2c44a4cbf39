"""Worker: puts together the loops that follow the log, route, push and record.

app → [worker: log_follower → dispatcher → recorder; lane_refill, range_reader, retention_loop, expiry_warnings, lag, repair]

`app.py` opens the ledger, transport, log and registry client that the worker uses.
"""

import asyncio
import contextlib
import math
import socket
from collections.abc import Callable
from typing import NamedTuple

from services.delivery.dispatch.consumer_pauses import ConsumerPauses
from services.delivery.dispatch.dispatcher import Dispatcher
from services.delivery.dispatch.due_clock import DueClock
from services.delivery.dispatch.lane_table import Bounds, LaneTable
from services.delivery.dispatch.retry_policy import RetryPolicy
from services.delivery.errors import LedgerFullError
from services.delivery.ledger.protocol import Ledger, Takeover
from services.delivery.notices.notice_publisher import NoticePublisher, PublishNotices
from services.delivery.request.sender import WebhookSender
from services.delivery.subscriptions.disable_reports import DisableReports
from services.delivery.subscriptions.freshness import Freshness
from services.delivery.subscriptions.read_barrier import ReadBarrier
from services.delivery.subscriptions.registry_client import RegistryClient
from services.delivery.subscriptions.registry_watch import RegistryWatch
from services.delivery.subscriptions.replica import Replica
from services.delivery.transport.protocol import Transport
from services.delivery.worker.backpressure import Backpressure
from services.delivery.worker.expiry_warnings import ExpiryWarnings
from services.delivery.worker.lag import LagReporter
from services.delivery.worker.lane_gauges import LaneGauges
from services.delivery.worker.lane_modes import LaneModes
from services.delivery.worker.lane_refill import LaneRefill, RefillRequests
from services.delivery.worker.log_follower import LogFollower
from services.delivery.worker.page_cache import PageCache
from services.delivery.worker.poison import Poison
from services.delivery.worker.range_reader import PageRequests, RangeReader
from services.delivery.worker.recorder import Recorder
from services.delivery.worker.repair import Repair
from services.delivery.worker.retention_loop import RetentionLimits, RetentionLoop
from services.delivery.worker.start_finder import StartFinder
from services.delivery.worker.transition_reports import TransitionReports
from services.delivery.worker.unflushed_deliveries import UnflushedDeliveries
from services.eventlog.filtered_read import RECORDS_MAX
from services.eventlog.protocol import EventLogReader
from services.runtime import failpoints
from services.runtime.clock import Clock
from services.runtime.configuration.settings import DeliverySettings
from services.runtime.fair_semaphore import Share
from services.runtime.ids import new_id
from services.runtime.logs import logger

_DRAIN_S = 15.0
_CLOCK_LOOK_S = 1.0
_LEASE_RETRY_S = 1.0
# A step of the wall clock that is stored, and one that is also logged: the steps by which a time server corrects it are less.
_STEP_MS, _JUMP_MS = 20, 1000


class Peers(NamedTuple):
    """What a worker calls of the other services."""

    log: EventLogReader
    registry: RegistryClient
    notices: PublishNotices


class Worker:
    """One worker: follows the log, routes, pushes and records."""

    def __init__(
        self,
        settings: DeliverySettings,
        ledger: Ledger,
        transport: Transport,
        peers: Peers,
        clock: Clock,
        backpressure: Backpressure | None = None,
        *,
        page_records: int = RECORDS_MAX,
        unverified: Callable[[str, str], None],
    ) -> None:
        """`page_records` is how many records of the log are read at once for a lane that is behind.

        `unverified` gets the ids of a subscription whose sink must be verified, and of its consumer.
        """
        self._settings = settings
        self._ledger = ledger
        log, registry, notices = peers
        self._log = log
        self._clock = clock
        self.replica = replica = Replica()
        """The subscriptions."""
        self._disable_reports = DisableReports(registry, replica.get)
        self.freshness = Freshness(clock, lost=self._on_freshness_lost, proven=self._on_freshness_proven)
        """Tells whether the replica may be relied on."""
        self._log_retention_s = math.inf  # until the log tells it: until then nothing expires by it
        retry_policy, bounds = self._retry_policy(), _bounds(settings)
        # What is only filled and read comes first, then the dispatcher that fills it, then the loops that read it.
        due = DueClock(clock, retry_policy.expiry_s)
        lanes = LaneTable(replica.get, clock, due, bounds.lane_pending_max, is_consumer_paused=replica.is_consumer_paused)
        self._unflushed = UnflushedDeliveries(lanes, backpressure or Backpressure(), clock)
        transitions = TransitionReports(self._unflushed.outbox, self._disable_reports, clock)
        refills, pages = RefillRequests(), PageRequests()
        self.dispatcher = Dispatcher(
            WebhookSender(transport, replica.active, clock, settings.origin, self._token_calls, self.freshness.holds),
            lanes,
            retry_policy,
            clock,
            bounds,
            settled=self._unflushed.add_settled,
            rows_due=refills.add,
            page_due=pages.add,
            due_now=self._unflushed.add_due_now,
            sinks=transitions,
        )
        self._consumer_pauses = ConsumerPauses(self.dispatcher, clock)
        self._lane_modes = LaneModes(self.dispatcher, replica, self._unflushed)
        self._recorder = Recorder(ledger, self._unflushed, self.dispatcher, self._lane_modes, clock, wanted=replica.wanted)
        self._lane_refill = LaneRefill(ledger, log, replica, refills, self.dispatcher, self._unflushed, self._recorder)
        self.barrier = ReadBarrier(replica, registry.revisions, clock, self.freshness)
        """Holds routing and test events back until the replica is new enough."""
        self._expiry_warnings = ExpiryWarnings(
            log,
            self._lane_modes.waiting,
            transitions.raise_expiring,
            age_ms=lanes.due.age_ms,
            log_retention_s=lambda: self._log_retention_s,
        )
        self._pages = PageCache(log, records_max=page_records)
        self._range_reader = RangeReader(self._pages, pages, self.dispatcher, self._lane_modes, self._unflushed, self.barrier)
        self._watch = self._new_watch(registry, transitions, unverified)
        self._poison = Poison(ledger, clock)
        self._notices = NoticePublisher(ledger, self._unflushed.outbox, notices, lambda: replica.checkpoint.registry_id)
        self._intake: list[asyncio.Task[None]] = []
        self.follower: LogFollower | None = None
        self.clock_jumped_ms = 0
        """How far the wall clock is known to have jumped since the ledger was created (forward: positive); due times leave jumps out."""
        self.repair: Repair | None = None
        """Resumes routing that is stopped; None until the worker has its lease."""

    def _new_watch(self, registry: RegistryClient, transitions: TransitionReports, unverified: Callable[[str, str], None]) -> RegistryWatch:
        return RegistryWatch(
            registry,
            self.replica,
            self.barrier,
            changed=self._on_changed,
            unwanted=self._cancel,
            disabled=lambda subscription, is_news: transitions.disabled(subscription, is_news=is_news),
            unverified=unverified,
            paused=self._on_paused,
        )

    def _cancel(self, subscription_id: str) -> None:
        self._lane_refill.cancel(subscription_id)
        self._lane_modes.cancel(subscription_id)

    def _on_changed(self, subscription_id: str) -> None:
        self._lane_modes.see(subscription_id)
        self.dispatcher.subscription_changed(subscription_id)

    def _on_paused(self, consumer_id: str, paused: bool) -> None:  # noqa: FBT001 - as the watch calls it
        if consumer_id:
            self._consumer_pauses.change(consumer_id, paused=paused)
            return
        if paused:
            logger().warning("deliveries.paused", effect="new events wait in the log, and no attempt starts, until they are resumed")
        else:
            logger().info("deliveries.resumed")
        self.dispatcher.pause(paused=paused)

    def _on_freshness_lost(self) -> None:
        self.dispatcher.withdraw_all()
        self.barrier.prove()

    def _on_freshness_proven(self) -> None:
        self.dispatcher.pump()

    def _token_calls(self) -> Share:
        return self._settings.share_of(self._settings.delivery_token_calls_max)

    def change_settings(self, settings: DeliverySettings) -> None:
        """Use the limits of other settings from now on."""
        self._settings = settings
        self._change_limits()

    def _following_begins(self, retention_s: float) -> None:
        """Forget pages of the log, which may be another one by now, and take over its retention, which bounds how long deliveries wait."""
        self._pages.clear()
        if retention_s != self._log_retention_s:
            self._log_retention_s = retention_s
            self._change_limits()

    def _change_limits(self) -> None:
        self.dispatcher.change(self._retry_policy(), _bounds(self._settings))
        if (why := self._settings.why_expiry_is_too_long(self._log_retention_s)) is not None:
            logger().error("expiry.beyond_log", detail=why)

    def _retry_policy(self) -> RetryPolicy:
        return RetryPolicy(self._settings.delivery_retry_delays_seconds, self._settings.expiry_s(self._log_retention_s))

    def why_not_ready(self) -> str | None:
        """Return in a sentence why events are not routed or pushed; None if they are."""
        if not self.replica.complete:
            return "waiting for the subscription service: the first snapshot of subscriptions is not complete"
        if not self.dispatcher.attempts.sending:
            return "the ledger cannot be written"
        return (
            (self.follower and self.follower.why_not_reading())
            or self.barrier.why_not_passing()
            or self._settings.why_expiry_is_too_long(self._log_retention_s)
        )

    @property
    def lane_modes(self) -> LaneModes:
        """The modes of its lanes."""
        return self._lane_modes

    def waits_s(self) -> float | None:
        """Return for how long a delivery may wait in the log, in seconds from its event's acceptance; None: the log has not told it yet."""
        waits_s = min(self._log_retention_s, self._settings.expiry_s(self._log_retention_s))
        return None if math.isinf(waits_s) else waits_s

    def why_degraded(self) -> str | None:
        """Return in a sentence why events wait or are set aside although this process is ready; None if none are."""
        if self.replica.system_paused:
            return "the operator has paused all deliveries: new events wait in the log until `hooktide system resume`"
        return self._poison.why_degraded()

    async def run(self) -> None:
        """Take the lease, then work until cancelled."""
        takeover = await self._take_lease()
        failpoints.reached("ledger.leased")
        self.clock_jumped_ms = takeover.clock_jumped_ms
        self._unflushed.outbox.resume(await self._ledger.outbox_counts())
        lane_rows = await self._ledger.lane_rows()
        self.dispatcher.due.resume_at(takeover.clock_jumped_ms, takeover.written_ms)
        ranges = await self._ledger.ranges()
        self._unflushed.floors.take_over(takeover.groups, takeover.slots)
        self._lane_modes.resume_at(takeover.groups[0].shards[0])
        self._lane_modes.starts.resume(await self._ledger.jobs())
        await self._poison.start(takeover.routing_note, takeover.groups[0].shards[0])
        self.follower = follower = LogFollower(
            self._log,
            self._ledger,
            self.replica,
            self.barrier,
            self.dispatcher,
            self._unflushed,
            self._lane_modes,
            self._clock,
            takeover,
            poison=self._poison,
            recorded=self._recorder.wait_until_recorded,
            begins=self._following_begins,
        )
        retention = RetentionLoop(
            self._ledger,
            self._log,
            self.dispatcher,
            self._recorder,
            self._lane_modes,
            lambda: _retention_limits(self._settings, self._log_retention_s),
        )
        self.repair = Repair(self._log, self._ledger, follower, self._recorder, self._lane_modes, retention)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._watch.run())
                group.create_task(self.barrier.run())
                group.create_task(self.freshness.run())
                group.create_task(self._disable_reports.run())
                group.create_task(self._recorder.run())
                group.create_task(self._watch_wall_clock())
                await self.replica.reached(1)
                self._intake = [group.create_task(self._lane_refill.run()), group.create_task(self._notices.run())]
                self._intake.append(group.create_task(self._range_reader.run()))
                self.dispatcher.restore(lane_rows)
                self._lane_modes.take_up(ranges)
                await self._lane_refill.start()
                failpoints.reached("delivery.taken_up")
                group.create_task(LagReporter(self._log, follower, self._unflushed.floors, self._clock).run())
                LaneGauges(self.dispatcher.lanes, self._lane_modes, self._clock).publish()
                self._intake += [group.create_task(follower.run()), group.create_task(retention.run())]
                self._intake.append(group.create_task(self._lane_modes.run(follower.routed)))
                self._intake.append(group.create_task(self._expiry_warnings.run()))
                self._intake.append(group.create_task(StartFinder(self._log, self._ledger, self._lane_modes, retention).run()))
        finally:
            # Whatever ended the tasks: start no more attempts, because their ends could not be recorded.
            self._consumer_pauses.close()
            self.dispatcher.close()

    async def _take_lease(self) -> Takeover:
        """Take the lease; if the disk is full, wait until it has free space."""
        owner = f"{socket.gethostname()}/{new_id('req')}"
        while True:
            try:
                return await self._ledger.take_lease(owner)
            except LedgerFullError:
                logger().error("ledger.disk_full", effect="nothing is sent until the disk has free space")
                await asyncio.sleep(_LEASE_RETRY_S)

    async def _watch_wall_clock(self) -> None:
        """Store in the ledger by how much the wall clock has jumped, so that waiting deliveries keep their waits across a restart."""
        while True:
            by_ms = self.dispatcher.due.jumped_ms() - self.clock_jumped_ms
            # Small steps count too: each of them would let the next process attempt retries that much too early.
            if abs(by_ms) >= _STEP_MS:
                with contextlib.suppress(LedgerFullError):  # the next look tries again
                    await self._ledger.set_clock_jump(self.clock_jumped_ms + by_ms)
                    self.clock_jumped_ms += by_ms
                    if abs(by_ms) >= _JUMP_MS:
                        by_s = round(by_ms / 1000, 1)
                        logger().warning("clock.jumped", by_s=by_s, effect="retries keep their delays, and signatures use the new time")
            await asyncio.sleep(_CLOCK_LOOK_S)

    async def drain(self) -> None:
        """Stop taking events in, start no more attempts, let the attempts under way end, and record all that is known."""
        for task in self._intake:
            task.cancel()
        self.dispatcher.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_S):
                await self.dispatcher.attempts.idle()
        self._recorder.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_S / 3):
                await self._recorder.wait_until_empty()
                await self._poison.stopped()


def _bounds(settings: DeliverySettings) -> Bounds:
    return Bounds(
        settings.delivery_in_flight_max,
        settings.delivery_lane_in_flight_max,
        settings.delivery_lane_pending_max,
        settings.delivery_breaker_seconds,
        settings.delivery_disable_after_hours * 3600,
    )


def _retention_limits(settings: DeliverySettings, log_retention_s: float) -> RetentionLimits:
    return RetentionLimits(
        retention_s=settings.delivery_retention_hours * 3600,
        expiry_s=settings.expiry_s(log_retention_s),
        log_s=log_retention_s,
        bytes_max=settings.delivery_ledger_bytes_max,
        every_s=settings.housekeeping_seconds,
    )
