"""App: puts the parent of several delivery workers together and runs it.

settings → [app] → workers; log_relay, front_server
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from hooktide.delivery.v1 import delivery_pb2_grpc
from prometheus_client import generate_latest

from services.delivery.ledger.sqlite.ledger_cut import ensure_cut
from services.delivery.ledger.sqlite.ledger_reader import open_ledger_reader
from services.delivery.parent import log_relay
from services.delivery.parent.front_server import RULES, FrontServer
from services.delivery.parent.ledger_fallback import LedgerFallback
from services.delivery.parent.log_relay import LogRelay
from services.delivery.parent.metrics_merge import merged_metrics
from services.delivery.parent.socket_directory import socket_directory, workers_lock
from services.delivery.parent.workers import Workers, linked_workers
from services.delivery.worker_seats import relay_socket
from services.runtime.background import in_background, until_one_ends
from services.runtime.configuration.reload import Reloadable, service_tokens
from services.runtime.configuration.settings import DeliverySettings
from services.runtime.database import database_path
from services.runtime.http.admin import admin_app, http_server
from services.runtime.rpc.access import ServiceTokens
from services.runtime.rpc.call_guard import CallLimits
from services.runtime.rpc.channel_and_server import Server, open_channel
from services.runtime.service_process import Addresses, ServiceProcess, WorkerSeat
from services.runtime.tls import client_tls, server_tls

# The workers have drained by then; only answers to reads may be under way.
_FRONT_STOPS_WITHIN_S = 1.0


@contextlib.asynccontextmanager
async def running(settings: DeliverySettings, process: ServiceProcess) -> AsyncIterator[Addresses]:
    """Run the parent and its workers; yield the addresses it listens on. On exit the workers drain first. Raises `StartError`."""
    reloadable = Reloadable(settings)
    token, tls, calls_tls = service_tokens(reloadable), server_tls(reloadable, "delivery"), client_tls(reloadable)
    database = database_path(settings.delivery_database_url, settings.data_dir, "delivery")
    async with contextlib.AsyncExitStack() as stack:
        lock = await stack.enter_async_context(workers_lock(database))
        await asyncio.to_thread(ensure_cut, database, settings.delivery_workers)
        sockets = stack.enter_context(socket_directory(settings.data_dir))
        seats = [WorkerSeat(number, sockets) for number in range(settings.delivery_workers)]
        workers = await stack.enter_async_context(linked_workers(seats, lock, token))
        ingest = await stack.enter_async_context(open_channel(settings.ingest_target, tls=calls_tls))
        await stack.enter_async_context(_relaying(LogRelay(ingest, token), relay_socket(sockets), token))
        front = Server(RULES, token, limits=CallLimits.of(settings), reflection=settings.grpc_reflection)
        reloadable.on_reload(lambda new: front.change_limits(CallLimits.of(new)))
        files = LedgerFallback(database, settings.delivery_workers, open_ledger_reader)
        delivery_pb2_grpc.add_DeliveryServiceServicer_to_server(FrontServer(workers, files), front.grpc)
        admin = await stack.enter_async_context(_admin(workers, reloadable))
        listen = await front.start(settings.delivery_listen, tls)
        stack.push_async_callback(front.stop, _FRONT_STOPS_WITHIN_S)
        async with _workers_running(workers, process):
            await until_one_ends(workers.all_ready(), process.stopping.wait())
            process.raise_failure()
            async with in_background(workers.keep_looking()), in_background(_hand_on_reloads(reloadable, workers, process)):
                await front.set_serving(serving=True)
                yield Addresses(listen=listen, admin=admin)


@contextlib.asynccontextmanager
async def _relaying(relay: LogRelay, listen: str, token: ServiceTokens) -> AsyncIterator[None]:
    """Relay the log to the workers at an address."""
    server = Server(log_relay.RULES, token)
    server.grpc.add_generic_rpc_handlers((relay.handler(),))
    await server.start(listen)
    async with in_background(relay.run()):
        await server.set_serving(serving=True)
        try:
            yield
        finally:
            await server.stop(0)


def _admin(workers: Workers, reloadable: Reloadable[DeliverySettings]) -> contextlib.AbstractAsyncContextManager[str]:
    async def metrics() -> bytes:
        return merged_metrics(generate_latest().decode(), await workers.metrics()).encode()

    app = admin_app(workers.why_not_ready, workers.why_degraded, parts=("workers", workers.states), metrics=metrics)
    return http_server(app, reloadable.settings.delivery_admin_listen, tls=server_tls(reloadable, "admin"))


@contextlib.asynccontextmanager
async def _workers_running(workers: Workers, process: ServiceProcess) -> AsyncIterator[None]:
    """Run the workers beside the body. A worker that cannot start ends the process with its message."""
    failure: Exception | None = None

    async def run() -> None:
        nonlocal failure
        try:
            await workers.run()
        except Exception as error:  # noqa: BLE001 - passed on: the process raises it at the end
            failure = error
            process.fail(error)

    async with in_background(run()):
        yield
    if failure is not None:
        raise failure


async def _hand_on_reloads(reloadable: Reloadable[DeliverySettings], workers: Workers, process: ServiceProcess) -> None:
    while True:
        await process.reload_asked.wait()
        process.reload_asked.clear()
        await reloadable.reload()
        workers.reload()
