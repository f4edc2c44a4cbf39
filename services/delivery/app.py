"""App: the delivery service put together."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable

from hooktide.delivery.v1 import delivery_pb2_grpc

from services.delivery import server
from services.delivery.barrier import Barrier
from services.delivery.dispatch import Bounds, Dispatcher
from services.delivery.follow import Follower
from services.delivery.ledger import Ledger, open_ledger
from services.delivery.recorder import Recorder
from services.delivery.refill import Refiller
from services.delivery.replica import Replica
from services.delivery.retention import Limits, Retention
from services.delivery.schedule import Schedule
from services.delivery.server import DeliveryServer
from services.delivery.transport import Transport
from services.delivery.transport_aiohttp import open_aiohttp_transport
from services.egress.policy import EgressPolicy
from services.eventlog.remote import RETRIED, RemoteEventLog
from services.runtime.admin import admin_app, http_server
from services.runtime.clock import SystemClock
from services.runtime.database import database_path
from services.runtime.ids import new_id
from services.runtime.lifecycle import Addresses, Lifecycle, StartError
from services.runtime.rpc import Server, open_channel
from services.runtime.settings import DeliverySettings

_DRAIN_S = 15.0


@contextlib.asynccontextmanager
async def running(settings: DeliverySettings, lifecycle: Lifecycle) -> AsyncIterator[Addresses]:
    """Run the service; yields where it is reached. On exit attempts under way may end, and what is known is recorded."""
    token = settings.token()
    path = database_path(settings.delivery_database_url, settings.data_dir, "delivery")
    async with contextlib.AsyncExitStack() as stack:
        ledger = await stack.enter_async_context(open_ledger(path))
        transport = await stack.enter_async_context(
            open_aiohttp_transport(
                _policy(settings),
                timeout_s=settings.delivery_attempt_timeout_seconds,
                connect_timeout_s=settings.delivery_connect_timeout_seconds,
                connections_max=settings.delivery_in_flight_max,
            )
        )
        worker = _Worker(settings, ledger, transport)
        grpc_server = Server(server.RULES, token)
        delivery_pb2_grpc.add_DeliveryServiceServicer_to_server(DeliveryServer(ledger), grpc_server.grpc)
        admin = await stack.enter_async_context(http_server(admin_app(worker.why_not_ready), settings.delivery_admin_listen))
        listen = await grpc_server.start(settings.delivery_listen)
        async with _worker_running(worker, lifecycle):
            await grpc_server.set_serving(serving=True)
            try:
                yield Addresses(listen=listen, admin=admin)
            finally:
                await grpc_server.stop()


async def serve(settings: DeliverySettings, lifecycle: Lifecycle) -> None:
    """Run the service until its process is asked to stop."""
    async with running(settings, lifecycle) as addresses:
        lifecycle.ready(listen=addresses.listen, admin=addresses.admin)
        await lifecycle.stopping.wait()


def _policy(settings: DeliverySettings) -> EgressPolicy:
    try:
        return EgressPolicy(settings.sink_allow, settings.sink_deny, settings.sink_ports)
    except ValueError as error:
        raise StartError(f"HOOKTIDE_SINK_ALLOW or HOOKTIDE_SINK_DENY: {error}") from error


class _Worker:
    """All that follows, routes, pushes and records."""

    def __init__(self, settings: DeliverySettings, ledger: Ledger, transport: Transport) -> None:
        self._settings = settings
        self._ledger = ledger
        self._token = settings.token()
        self._clock = SystemClock()
        self._registry = open_channel(settings.subscription_target)
        self._ingest = open_channel(settings.ingest_target, retried=RETRIED)
        self._log = RemoteEventLog(self._ingest, self._token)
        self._replica = Replica(self._registry, self._token)
        self._refiller = Refiller(ledger, self._log, self._replica, self._clock)
        self._dispatcher = Dispatcher(
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
        self._recorder = Recorder(ledger, self._dispatcher, self._clock, gone=lambda each: not self._replica.wanted(each))
        self._replica.listen(changed=self._dispatcher.revive, gone=self._refiller.gone)
        self._dispatcher.listen(changed=self._recorder.changed, hungry=self._refiller.hungry)
        self._refiller.serve(self._dispatcher, self._recorder)
        self._barrier = Barrier(self._replica)

    def why_not_ready(self) -> str | None:
        """Return why no event is routed, None where all is well."""
        if not self._replica.complete:
            return "waiting for the subscription service: the first snapshot of subscriptions is not complete"
        return None if self._dispatcher.sending else "the ledger cannot be written"

    async def run(self) -> None:
        """Take the lease, then work until cancelled."""
        cursors = await self._ledger.lease(f"{socket.gethostname()}/{new_id('req')}")
        follower = Follower(self._log, self._ledger, self._replica, self._barrier, self._dispatcher, self._recorder, self._clock, cursors)
        settings = self._settings
        retention = Retention(
            self._ledger,
            self._log,
            self._dispatcher,
            self._recorder,
            self._clock,
            Limits(
                retention_s=settings.delivery_retention_hours * 3600,
                expiry_s=settings.delivery_expiry_hours * 3600,
                bytes_max=settings.delivery_ledger_bytes_max,
                every_s=settings.housekeeping_seconds,
            ),
        )
        async with self._registry, self._ingest, asyncio.TaskGroup() as group:
            group.create_task(self._replica.run())
            group.create_task(self._barrier.run())
            group.create_task(self._recorder.run())
            await self._replica.reached(1)
            group.create_task(self._refiller.run())
            await self._refiller.start()
            group.create_task(follower.run())
            group.create_task(retention.run())

    async def drain(self) -> None:
        """Start no more attempts, let those under way end, and record all that is known."""
        self._dispatcher.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_S):
                await self._dispatcher.idle()
        self._recorder.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_S / 3):
                await self._recorder.settle()


@contextlib.asynccontextmanager
async def _worker_running(worker: _Worker, lifecycle: Lifecycle) -> AsyncIterator[None]:
    """Run the worker beside the body; its failure stops the process, since it can then promise nothing."""

    async def run(work: Awaitable[None]) -> None:
        try:
            await work
        except Exception as error:  # noqa: BLE001 - handed on: the lifecycle raises it at the end
            lifecycle.fail(error)

    async with asyncio.TaskGroup() as group:
        working = group.create_task(run(worker.run()))
        try:
            yield
        finally:
            if not working.done():
                await worker.drain()
            working.cancel()
