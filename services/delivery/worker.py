"""Worker: all that follows the log, routes, pushes and records, put together; `app.py` gives it the world it works in."""

import asyncio
import contextlib
import socket
from collections.abc import Callable

from services.delivery.barrier import Barrier
from services.delivery.dispatch import Bounds, Dispatcher
from services.delivery.follow import Follower
from services.delivery.ledger import Ledger
from services.delivery.recorder import Recorder
from services.delivery.refill import Refiller
from services.delivery.replica import Replica
from services.delivery.retention import Limits, Retention
from services.delivery.schedule import Schedule
from services.delivery.transport import Transport
from services.eventlog.protocols import EventLogReader
from services.runtime import crash
from services.runtime.clock import Clock
from services.runtime.ids import new_id
from services.runtime.settings import DeliverySettings

_DRAIN_S = 15.0


def _only_pause(subscription_id: str, revision: int) -> None:
    """Leave a sink that is gone to the pause that the dispatcher makes."""


class Worker:
    """All that follows, routes, pushes and records."""

    def __init__(
        self,
        settings: DeliverySettings,
        ledger: Ledger,
        transport: Transport,
        log: EventLogReader,
        replica: Replica,
        clock: Clock,
        gone: Callable[[str, int], None] = _only_pause,
    ) -> None:
        """`gone` is told the subscription, and its revision, of a sink that has answered 410."""
        self._settings = settings
        self._ledger = ledger
        self._log = log
        self._replica = replica
        self._clock = clock
        self._refiller = Refiller(ledger, self._log, self._replica, self._clock)
        self.dispatcher = Dispatcher(
            transport,
            self._replica.get,
            Schedule(settings.delivery_retry_delays_seconds, settings.delivery_expiry_hours * 3600),
            self._clock,
            Bounds(
                settings.delivery_in_flight_max,
                settings.delivery_lane_in_flight_max,
                settings.delivery_lane_pending_max,
                settings.delivery_breaker_seconds,
            ),
        )
        self._recorder = Recorder(ledger, self.dispatcher, self._clock, gone=lambda each: not self._replica.wanted(each))
        self._replica.listen(changed=self.dispatcher.revive, gone=self._refiller.gone)
        self.dispatcher.listen(changed=self._recorder.changed, hungry=self._refiller.hungry, gone=gone)
        self._refiller.serve(self.dispatcher, self._recorder)
        self._barrier = Barrier(self._replica)
        self._intake: list[asyncio.Task[None]] = []

    def why_not_ready(self) -> str | None:
        """Return why no event is routed, None where all is well."""
        if not self._replica.complete:
            return "waiting for the subscription service: the first snapshot of subscriptions is not complete"
        return None if self.dispatcher.sending else "the ledger cannot be written"

    async def run(self) -> None:
        """Take the lease, then work until cancelled."""
        cursors = await self._ledger.lease(f"{socket.gethostname()}/{new_id('req')}")
        crash.reached("ledger.leased")
        follower = Follower(self._log, self._ledger, self._replica, self._barrier, self.dispatcher, self._recorder, self._clock, cursors)
        settings = self._settings
        retention = Retention(
            self._ledger,
            self._log,
            self.dispatcher,
            self._recorder,
            self._clock,
            Limits(
                retention_s=settings.delivery_retention_hours * 3600,
                expiry_s=settings.delivery_expiry_hours * 3600,
                bytes_max=settings.delivery_ledger_bytes_max,
                every_s=settings.housekeeping_seconds,
            ),
        )
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._replica.run())
                group.create_task(self._barrier.run())
                group.create_task(self._recorder.run())
                await self._replica.reached(1)
                self._intake = [group.create_task(self._refiller.run())]
                await self._refiller.start()
                crash.reached("delivery.taken_up")
                self._intake += [group.create_task(follower.run()), group.create_task(retention.run())]
        finally:
            # Whatever ended the others: nothing more is sent whose end could not be recorded.
            self.dispatcher.close()

    async def drain(self) -> None:
        """Take in nothing more, start no more attempts, let those under way end, and record all that is known."""
        for task in self._intake:
            task.cancel()
        self.dispatcher.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_S):
                await self.dispatcher.idle()
        self._recorder.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_S / 3):
                await self._recorder.settle()
