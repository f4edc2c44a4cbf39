"""App: puts the delivery service together and runs it."""

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from hooktide.delivery.v1 import delivery_pb2_grpc

from services.delivery import server
from services.delivery.ledger.ledger_map import slots_of
from services.delivery.ledger.sqlite.ledger import open_ledger
from services.delivery.ledger.sqlite.ledger_cut import ensure_cut
from services.delivery.ledger.sqlite.ledger_files import owned_file
from services.delivery.listings.delivery_listings import DeliveryListings
from services.delivery.notices.notice_client import NoticeClient
from services.delivery.server import DeliveryServer
from services.delivery.sinks.sink_verification import SinkVerifier
from services.delivery.sinks.test_event import SinkTester
from services.delivery.sinks.verification_client import VerificationClient
from services.delivery.sinks.verification_queue import VerificationQueue
from services.delivery.subscriptions.registry_client import RegistryClient
from services.delivery.transport.exchange import Limits
from services.delivery.transport.http import open_http_transport
from services.delivery.transport.protocol import Transport
from services.delivery.worker.worker import Peers, Worker
from services.delivery.worker_seats import relay_socket, settings_of_worker
from services.egress.policy import EgressPolicy
from services.eventlog.grpc_client import RETRIED, GrpcEventHistory, GrpcEventLogReader
from services.runtime.background import in_background
from services.runtime.clock import SystemClock
from services.runtime.configuration.reload import Reloadable, reloading, service_tokens
from services.runtime.configuration.settings import DeliverySettings
from services.runtime.configuration.settings_reader import read_settings
from services.runtime.database import database_path
from services.runtime.fair_semaphore import Share
from services.runtime.file_limit import connections_within
from services.runtime.http.admin import admin_app, http_server
from services.runtime.rpc.call_guard import CallLimits
from services.runtime.rpc.channel_and_server import Server, open_channel
from services.runtime.service_process import Addresses, ServiceProcess, StartError, WorkerSeat
from services.runtime.tls import client_tls, server_tls

OpenTransport = Callable[[EgressPolicy, Reloadable[DeliverySettings]], AbstractAsyncContextManager[Transport]]


def open_transport(policy: EgressPolicy, reloadable: Reloadable[DeliverySettings]) -> AbstractAsyncContextManager[Transport]:
    """Open the HTTP transport that webhooks leave by; a reload of the settings changes its limits."""
    limits = _transport_limits(reloadable.settings)
    reloadable.on_reload(lambda new: limits.replace(_transport_limits(new)))
    return open_http_transport(policy, limits, proxy=reloadable.settings.delivery_proxy)


def _transport_limits(settings: DeliverySettings) -> Limits:
    return Limits(
        timeout_s=settings.delivery_attempt_timeout_seconds,
        connect_timeout_s=settings.delivery_connect_timeout_seconds,
        first_byte_timeout_s=settings.delivery_first_byte_timeout_seconds,
        connections_max=connections_within("HOOKTIDE_DELIVERY_CONNECTIONS_MAX", settings.delivery_connections_max),
        host_connections_max=settings.delivery_host_connections_max,
        lookups=settings.share_of(settings.sink_lookups_max),
        contexts_max=settings.delivery_tls_contexts_max,
    )


@contextlib.asynccontextmanager
async def running(
    settings: DeliverySettings, process: ServiceProcess, open_transport: OpenTransport = open_transport
) -> AsyncIterator[Addresses]:
    """Run the service, or one of its workers; yield the addresses it listens on.

    On exit attempts under way may end, and their outcomes are recorded.
    """
    seat = process.seat
    read = functools.partial(read_settings, DeliverySettings)
    if seat is not None:
        read = functools.partial(_settings_of_seat, seat)
        settings = settings_of_worker(settings, seat)
    reloadable = Reloadable(settings, read)
    token, tls, calls_tls = service_tokens(reloadable), server_tls(reloadable, "delivery"), client_tls(reloadable)
    async with contextlib.AsyncExitStack() as stack:
        ledger = await stack.enter_async_context(open_ledger(await asyncio.to_thread(_ledger_path, settings, seat)))
        transport = await stack.enter_async_context(open_transport(reloadable.derived(_egress_policy, EgressPolicy.replace), reloadable))
        registry = await stack.enter_async_context(open_channel(settings.subscription_target, tls=calls_tls))
        ingest = await stack.enter_async_context(open_channel(settings.ingest_target, retried=RETRIED, tls=calls_tls))
        followed = ingest if seat is None else await stack.enter_async_context(open_channel(relay_socket(seat.sockets)))
        clock = SystemClock()
        slots = None if seat is None else slots_of(seat.number, settings.delivery_workers)
        log = GrpcEventLogReader(ingest, token, followed)

        def handshakes() -> Share:
            return reloadable.settings.share_of(reloadable.settings.delivery_handshakes_max)

        verifier = SinkVerifier(
            VerificationClient(registry, token), transport, origin=settings.origin, public_url=settings.public_url, share=handshakes
        )
        verifications = VerificationQueue(verifier, handshakes)
        registry_client = RegistryClient(registry, token, clock, slots)
        peers = Peers(log, registry_client, NoticeClient(ingest, token))
        worker = Worker(settings, ledger, transport, peers, clock, unverified=verifications.put)
        reloadable.on_reload(worker.change_settings)
        tester = _sink_tester(worker, transport, clock, reloadable)
        grpc_server = Server(server.RULES, token, limits=CallLimits.of(settings), reflection=settings.grpc_reflection)
        reloadable.on_reload(lambda new: grpc_server.change_limits(CallLimits.of(new)))
        listings = DeliveryListings(
            ledger,
            log,
            GrpcEventHistory(ingest, token),
            worker.dispatcher.lanes,
            worker.replica,
            recorded_through=worker.lane_modes.recorded_of,
            waits_s=worker.waits_s,
        )
        delivery_pb2_grpc.add_DeliveryServiceServicer_to_server(DeliveryServer(listings, verifier, tester, worker), grpc_server.grpc)
        admin = await stack.enter_async_context(
            http_server(
                admin_app(worker.why_not_ready, worker.why_degraded), settings.delivery_admin_listen, tls=server_tls(reloadable, "admin")
            )
        )
        listen = await grpc_server.start(settings.delivery_listen, tls)
        async with in_background(verifications.run()), _worker_running(worker, process), reloading(reloadable, process):
            await grpc_server.set_serving(serving=True)
            try:
                yield Addresses(listen=listen, admin=admin)
            finally:
                await grpc_server.stop()


def _ledger_path(settings: DeliverySettings, seat: WorkerSeat | None) -> Path:
    """Return the ledger file of the service, or of one of its workers, whose files the parent has cut. Raises `StartError`."""
    database = database_path(settings.delivery_database_url, settings.data_dir, "delivery")
    if seat is not None:
        return owned_file(database, seat.number, settings.delivery_workers)
    [path] = ensure_cut(database, 1)
    return path


def _sink_tester(worker: Worker, transport: Transport, clock: SystemClock, reloadable: Reloadable[DeliverySettings]) -> SinkTester:
    def share() -> Share:
        return reloadable.settings.share_of(reloadable.settings.delivery_test_events_max)

    replica = worker.replica
    return SinkTester(
        transport,
        replica.get,
        replica.active,
        worker.barrier.passed,
        clock,
        reloadable.settings.origin,
        share,
        worker.freshness.holds,
    )


def _settings_of_seat(seat: WorkerSeat) -> DeliverySettings:
    return settings_of_worker(read_settings(DeliverySettings), seat)


def _egress_policy(settings: DeliverySettings) -> EgressPolicy:
    try:
        return EgressPolicy(settings.sink_allow, settings.sink_deny, settings.sink_ports)
    except ValueError as error:
        raise StartError(f"HOOKTIDE_SINK_ALLOW or HOOKTIDE_SINK_DENY: {error}") from error


@contextlib.asynccontextmanager
async def _worker_running(worker: Worker, process: ServiceProcess) -> AsyncIterator[None]:
    """Run the worker beside the body; its failure stops the process, which can then guarantee nothing."""

    async def run(work: Awaitable[None]) -> None:
        try:
            await work
        except Exception as error:  # noqa: BLE001 - passed on: the process raises it at the end
            process.fail(error)

    async with asyncio.TaskGroup() as group:
        working = group.create_task(run(worker.run()))
        try:
            yield
        finally:
            if not working.done():
                await worker.drain()
            working.cancel()
