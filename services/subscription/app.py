"""App: starts the subscription service from its settings, and stops it.

settings → startup_checks → store → [app] → server

Shutdown: the health becomes NOT_SERVING, the watches end, the calls under way are answered, then the database closes.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from functools import partial

from hooktide.subscription.v1 import (
    access_pb2,
    access_pb2_grpc,
    catalogue_pb2,
    catalogue_pb2_grpc,
    subscription_pb2,
    subscription_pb2_grpc,
    system_pb2,
    system_pb2_grpc,
)

from services.egress.policy import EgressPolicy
from services.runtime import failpoints
from services.runtime.background import in_background
from services.runtime.clock import Clock
from services.runtime.configuration.reload import Apply, Reloadable, reloading, service_tokens
from services.runtime.configuration.setting_types import PREFIX
from services.runtime.configuration.settings import SubscriptionSettings
from services.runtime.errors import Failure
from services.runtime.http.admin import admin_app, http_server
from services.runtime.rpc.access import Access
from services.runtime.rpc.call_guard import CallLimits
from services.runtime.rpc.channel_and_server import Server
from services.runtime.service_process import Addresses, ServiceProcess, StartError
from services.runtime.tls import server_tls
from services.subscription.api.access_server import AccessServer
from services.subscription.api.catalogue_server import CatalogueServer
from services.subscription.api.subscription_server import SubscriptionServer
from services.subscription.api.system_server import SystemServer
from services.subscription.model import VerificationPolicy
from services.subscription.rules.sink_lookup import Resolve, SinkLookup, system_addresses
from services.subscription.store import secret_keys
from services.subscription.store.resealer import Resealer
from services.subscription.store.startup_checks import OpenRegistry, open_registry
from services.subscription.store.store import Store, running_store
from services.subscription.store.transaction import Writing
from services.subscription.store.vault import Vault
from services.subscription.store.verifications import release, unverified

_SERVICES = (
    subscription_pb2.DESCRIPTOR.services_by_name["SubscriptionService"],
    catalogue_pb2.DESCRIPTOR.services_by_name["CatalogueService"],
    access_pb2.DESCRIPTOR.services_by_name["AccessService"],
    system_pb2.DESCRIPTOR.services_by_name["SystemService"],
)
RULES = {f"/{service.full_name}/{method.name}": Access.SERVICE for service in _SERVICES for method in service.methods}


@contextlib.asynccontextmanager
async def running(
    settings: SubscriptionSettings, process: ServiceProcess, clock: Clock | None = None, resolve: Resolve = system_addresses
) -> AsyncIterator[Addresses]:
    """Run the service; yield its addresses. Raises `StartError` if the service cannot start.

    `resolve` returns the addresses of a name; it blocks until they are known.
    """
    reloadable = Reloadable(settings)
    reloadable.on_reload(lambda new: server.change_limits(CallLimits.of(new)))
    server = Server(RULES, service_tokens(reloadable), limits=CallLimits.of(settings), reflection=settings.grpc_reflection)
    tls = server_tls(reloadable, "subscription")
    egress_policy, verification_policy = reloadable.derived(_egress_policy, EgressPolicy.replace), _verification_policy(settings)
    with open_registry(settings, clock) as registry:
        failpoints.reached("registry.opened")
        async with running_store(registry, process, clock) as store:
            if verification_policy is not VerificationPolicy.REQUIRED:
                await _release(store)
            resealer = Resealer(store)
            reloadable.on_prepare(partial(_prepare_secret_keys, registry, store, resealer))
            sink_lookup = SinkLookup(egress_policy, lambda: reloadable.settings.share_of(reloadable.settings.sink_lookups_max), resolve)
            events_kept_ms = partial(_events_kept_ms, reloadable)
            subscriptions = SubscriptionServer(store, egress_policy, sink_lookup, verification_policy, events_kept_ms)

            def ready() -> str | None:
                if store.broken:
                    return "the database failed"
                return "the service is stopping" if process.stopping.is_set() else None

            subscription_pb2_grpc.add_SubscriptionServiceServicer_to_server(subscriptions, server.grpc)
            catalogue_pb2_grpc.add_CatalogueServiceServicer_to_server(CatalogueServer(store), server.grpc)
            access_pb2_grpc.add_AccessServiceServicer_to_server(AccessServer(store, events_kept_ms), server.grpc)
            system_pb2_grpc.add_SystemServiceServicer_to_server(SystemServer(store, events_kept_ms), server.grpc)
            async with http_server(admin_app(ready), settings.subscription_admin_listen, tls=server_tls(reloadable, "admin")) as admin:
                try:
                    listen = await server.start(settings.subscription_listen, tls)
                    await server.set_serving(serving=True)
                    async with reloading(reloadable, process), in_background(resealer.run()):
                        yield Addresses(listen=listen, admin=admin)
                finally:
                    await server.set_serving(serving=False)
                    store.stop_watching()
                    await server.stop()


async def _prepare_secret_keys(registry: OpenRegistry, store: Store, resealer: Resealer, settings: SubscriptionSettings) -> Apply:
    """Check the secret keys of new settings, as at a start; return a function that uses them and starts resealing with the newest key."""
    keys, vault = await asyncio.to_thread(settings.secret_keys), registry.vault
    if vault.newest not in keys:
        message = (
            f"{PREFIX}SECRET_KEY does not have the key {vault.newest!r}, which encrypts at present; put the new key first and keep "
            "the present one after it"
        )
        raise StartError(message)

    def check(writing: Writing) -> None:
        secret_keys.check(writing.connection, Vault(keys), registry.database.name, writing.now_ms)

    try:
        # On the writer's thread, so that no write seals a value in the meantime.
        await store.write(check)
    except Failure as failure:
        message = f"{PREFIX}SECRET_KEY cannot be checked against {registry.database.name} now: {failure}; send SIGHUP again later"
        raise StartError(message) from failure

    def apply() -> None:
        vault.replace(keys)
        resealer.want()

    return apply


def _events_kept_ms(reloadable: Reloadable[SubscriptionSettings]) -> int:
    settings = reloadable.settings
    log_hours, expiry_hours = settings.ingest_retention_hours, settings.delivery_expiry_hours
    return int((log_hours if expiry_hours is None else min(log_hours, expiry_hours)) * 3_600_000)


def _egress_policy(settings: SubscriptionSettings) -> EgressPolicy:
    try:
        return EgressPolicy(settings.sink_allow, settings.sink_deny, settings.sink_ports)
    except ValueError as error:
        raise StartError(f"HOOKTIDE_SINK_ALLOW or HOOKTIDE_SINK_DENY: {error}") from error


def _verification_policy(settings: SubscriptionSettings) -> VerificationPolicy:
    policy = VerificationPolicy(settings.sink_handshake)
    if policy is not VerificationPolicy.OFF and not settings.origin:
        message = (
            f"{PREFIX}SINK_HANDSHAKE={policy.value} needs {PREFIX}ORIGIN; set it to this system's DNS name, for example hooks.example.com"
        )
        raise StartError(message)
    return policy


async def _release(store: Store) -> None:
    """Activate the subscriptions that wait for a consent that the operator no longer requires."""
    for subscription_id in await store.read(unverified):
        await store.write(partial(release, subscription_id=subscription_id))
