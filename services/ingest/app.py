"""App: the ingest service, from its settings to a serving process.

settings → [app] → server, notice_server, log_server, lag
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from hooktide.ingest.v1 import event_log_pb2_grpc, notice_pb2_grpc
from prometheus_client import Gauge

from services.eventlog.errors import EventLogError
from services.eventlog.protocol import EventLog, EventLogMaintenance
from services.eventlog.sqlite.log import open_sqlite_log
from services.ingest import log_server, notice_server, server
from services.ingest.emitter_authorization import EmitterAuthorizer
from services.ingest.lag import LagMonitor
from services.ingest.log_server import EventLogServer
from services.ingest.notice_server import NoticeServer
from services.ingest.publish import Publisher
from services.ingest.registry_client import RETRIED, RegistryClient
from services.ingest.server import IngestServer
from services.runtime.clock import SystemClock, unix_ms
from services.runtime.configuration.reload import Reloadable, reloading, service_tokens
from services.runtime.configuration.settings import IngestSettings
from services.runtime.database import database_path
from services.runtime.http.admin import admin_app, http_server
from services.runtime.logs import logger
from services.runtime.rpc.call_guard import CallLimits
from services.runtime.rpc.channel_and_server import Server, open_channel
from services.runtime.service_process import Addresses, ServiceProcess
from services.runtime.steady_clock import SteadyClock, confirm_s
from services.runtime.tls import client_tls, server_tls

_log_bytes = Gauge("hooktide_log_bytes", "Size of the event log on disk, in bytes.")


@contextlib.asynccontextmanager
async def running(settings: IngestSettings, process: ServiceProcess) -> AsyncIterator[Addresses]:
    """Run the service; yield its addresses. On exit, drain the service, then close the log."""
    clock, reloadable = SteadyClock(SystemClock()), Reloadable(settings)
    token, tls, calls_tls = service_tokens(reloadable), server_tls(reloadable, "ingest"), client_tls(reloadable)
    path = database_path(settings.ingest_database_url, settings.data_dir, "ingest")
    retention_s = settings.ingest_retention_hours * 3600
    async with contextlib.AsyncExitStack() as stack:
        log: EventLog = await stack.enter_async_context(
            open_sqlite_log(path, clock, bytes_max=settings.ingest_log_bytes_max, retention_s=retention_s, failed=process.fail)
        )
        channel = await stack.enter_async_context(open_channel(settings.subscription_target, retried=RETRIED, tls=calls_tls))
        authorizer = EmitterAuthorizer(RegistryClient(channel, token), clock)
        draining = asyncio.Event()

        def ready() -> str | None:
            return "the service is stopping" if draining.is_set() or process.stopping.is_set() else None

        limits = CallLimits.of(settings, calls_per_connection_max=settings.ingest_connection_calls_max)
        rules, reflection = {**server.RULES, **log_server.RULES, **notice_server.RULES}, settings.grpc_reflection
        grpc_server = Server(rules, token, authorizer=authorizer, limits=limits, reflection=reflection)
        reloadable.on_reload(lambda new: grpc_server.change_limits(CallLimits.of(new)))
        publisher = Publisher(log, authorizer, event_bytes_max=settings.ingest_event_bytes_max)

        def change_limits(new: IngestSettings) -> None:
            publisher.event_bytes_max = new.ingest_event_bytes_max
            log.change_limits(bytes_max=new.ingest_log_bytes_max, retention_s=new.ingest_retention_hours * 3600)

        reloadable.on_reload(change_limits)
        IngestServer(publisher, authorizer, draining).add_to(grpc_server.grpc)
        notice_pb2_grpc.add_NoticeServiceServicer_to_server(NoticeServer(publisher), grpc_server.grpc)
        event_log_pb2_grpc.add_EventLogServiceServicer_to_server(EventLogServer(log), grpc_server.grpc)
        admin = await stack.enter_async_context(
            http_server(
                admin_app(ready, lambda: log_server.why_degraded(log)), settings.ingest_admin_listen, tls=server_tls(reloadable, "admin")
            )
        )
        listen = await grpc_server.start(settings.ingest_listen, tls)
        await grpc_server.set_serving(serving=True)
        await stack.enter_async_context(reloading(reloadable, process))
        async with asyncio.TaskGroup() as group:
            trimming = group.create_task(_trim(log, reloadable))
            looking = group.create_task(LagMonitor(log, clock).run())
            try:
                yield Addresses(listen=listen, admin=admin)
            finally:
                draining.set()
                log.end_following()
                trimming.cancel()
                looking.cancel()
                await grpc_server.stop()


async def _trim(log: EventLogMaintenance, reloadable: Reloadable[IngestSettings]) -> None:
    """At intervals, drop the events that are past their retention and released. Drop nothing while the wall clock is in doubt."""
    clock = SteadyClock(SystemClock(), confirm_s(reloadable.settings.ingest_retention_hours * 3600))
    while True:
        with contextlib.suppress(EventLogError):  # the log is closing or has failed, and reports a failure itself
            before_ms = int(unix_ms(clock) - reloadable.settings.ingest_retention_hours * 3_600_000)
            dropped = await log.trim(before_ms=before_ms) if clock.settled() else 0
            if dropped:
                logger().info("log.trimmed", events=dropped)
            _log_bytes.set(await log.used_bytes())
        await clock.sleep(reloadable.settings.housekeeping_seconds)
