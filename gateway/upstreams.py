"""Upstreams: the services behind the gateway, with one channel each, and the only way to call them.

route → [upstreams] → subscription, ingest, delivery

Law 1: a call ends within its deadline. A read is sent again if a service could not be reached.
Law 2: every error of a call becomes a `Failure` in terms of REST; no gRPC error reaches a route.
"""

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc
from hooktide.delivery.v1 import delivery_pb2, delivery_pb2_grpc
from hooktide.ingest.v1 import event_log_pb2, event_log_pb2_grpc
from hooktide.subscription.v1 import access_pb2_grpc, catalogue_pb2_grpc, subscription_pb2, subscription_pb2_grpc, system_pb2_grpc

from gateway.problems import in_rest_terms, internal_fault
from gateway.readiness import AWAY
from services.runtime.configuration.reload import Reloadable, service_tokens
from services.runtime.configuration.settings import GatewaySettings
from services.runtime.errors import Reason, failure_from_rpc
from services.runtime.logs import logger
from services.runtime.rpc.channel_and_server import open_channel, service_metadata
from services.runtime.tls import client_tls

PROBE_S = 2.0
_REGISTRY = "hooktide.subscription.v1"
_REGISTRY_READS = (
    *(f"{_REGISTRY}.SubscriptionService/{name}" for name in ("GetSubscription", "ListSubscriptions", "GetSecrets")),
    *(f"{_REGISTRY}.CatalogueService/{name}" for name in ("GetEventType", "ListEventTypes")),
    f"{_REGISTRY}.SystemService/GetSystem",
    *(f"{_REGISTRY}.AccessService/{name}" for name in ("AuthenticateKeys", "GetConsumer", "ListConsumers", "GetKey", "ListKeys")),
)
_LOG_READS = tuple(f"hooktide.ingest.v1.EventLogService/{name}" for name in ("GetEvent", "ListEvents"))
_LEDGER_READS = tuple(f"hooktide.delivery.v1.DeliveryService/{name}" for name in ("GetDelivery", "ListDeliveries"))
# Reasons that are for services only. If the gateway gets one, it and the service do not fit together.
_UNEXPECTED_REASONS = frozenset({Reason.SERVICE_TOKEN_REQUIRED, Reason.ROUTE_NOT_FOUND, Reason.METHOD_NOT_ALLOWED})

_Request = TypeVar("_Request", bound=Message)
_Answer = TypeVar("_Answer", bound=Message)

if TYPE_CHECKING:
    # The asyncio form of the generated stubs exists for type checkers only.
    from hooktide.delivery.v1.delivery_pb2_grpc import DeliveryServiceAsyncStub
    from hooktide.ingest.v1.event_log_pb2_grpc import EventLogServiceAsyncStub
    from hooktide.subscription.v1.access_pb2_grpc import AccessServiceAsyncStub
    from hooktide.subscription.v1.catalogue_pb2_grpc import CatalogueServiceAsyncStub
    from hooktide.subscription.v1.subscription_pb2_grpc import SubscriptionServiceAsyncStub
    from hooktide.subscription.v1.system_pb2_grpc import SystemServiceAsyncStub


@dataclass(frozen=True, slots=True)
class Upstreams:
    """The services, and the metadata by which the gateway authenticates to them."""

    subscriptions: "SubscriptionServiceAsyncStub"
    catalogue: "CatalogueServiceAsyncStub"
    access: "AccessServiceAsyncStub"
    system: "SystemServiceAsyncStub"
    log: "EventLogServiceAsyncStub"
    ledger: "DeliveryServiceAsyncStub"
    health: "dict[str, health_pb2_grpc.HealthStub]"
    metadata: Sequence[tuple[str, str]]

    async def call(
        self, method: "grpc.aio.UnaryUnaryMultiCallable[_Request, _Answer]", request: _Request, *, timeout_s: float | None = None
    ) -> _Answer:
        """Return a service's answer within `timeout_s` (None: the default deadline); raise `Failure` if the service refuses or is away."""
        try:
            return await method(request, metadata=self.metadata, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            failure = failure_from_rpc(error)
        if failure.reason in _UNEXPECTED_REASONS:
            logger().error("upstream.request_rejected", request=type(request).__name__, reason=failure.reason.name)
            raise internal_fault()
        raise in_rest_terms(failure)

    async def why_not_ready(self, service: str) -> str | None:
        """Return None, or why a service is not fully ready: its own sentence, or `AWAY`. The registry must also accept our token."""
        try:
            if service == "subscription":
                await self.subscriptions.GetRevision(subscription_pb2.GetRevisionRequest(), metadata=self.metadata, timeout=PROBE_S)
                return None
            answer = await self.health[service].Check(health_pb2.HealthCheckRequest(), timeout=PROBE_S)
            if answer.status != health_pb2.HealthCheckResponse.SERVING:
                return AWAY
            return await self._reason_given_by(service)
        except grpc.aio.AioRpcError:
            return AWAY

    async def _reason_given_by(self, service: str) -> str | None:
        try:
            if service == "ingest":
                asked = event_log_pb2.GetReadinessRequest()
                reason = (await self.log.GetReadiness(asked, metadata=self.metadata, timeout=PROBE_S)).why_not_ready
            else:
                reason = (
                    await self.ledger.GetReadiness(delivery_pb2.GetReadinessRequest(), metadata=self.metadata, timeout=PROBE_S)
                ).why_not_ready
        except grpc.aio.AioRpcError as error:
            # A service of an older version does not have this method. If a service does not accept our token, each call logs that.
            if error.code() in {grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.UNAUTHENTICATED}:
                return None
            raise
        return reason or None


@contextlib.asynccontextmanager
async def connected_upstreams(reloadable: Reloadable[GatewaySettings]) -> AsyncIterator[Upstreams]:
    """Open the channels to all services without waiting for a connection; close the channels at the end."""
    settings, tls = reloadable.settings, client_tls(reloadable)
    metadata = service_metadata(service_tokens(reloadable))
    async with (
        open_channel(settings.subscription_target, retried=_REGISTRY_READS, tls=tls) as registry,
        open_channel(settings.ingest_target, retried=_LOG_READS, tls=tls) as ingest,
        open_channel(settings.delivery_target, retried=_LEDGER_READS, tls=tls) as delivery,
    ):
        yield Upstreams(
            subscriptions=subscription_pb2_grpc.SubscriptionServiceStub(registry),
            catalogue=catalogue_pb2_grpc.CatalogueServiceStub(registry),
            access=access_pb2_grpc.AccessServiceStub(registry),
            system=system_pb2_grpc.SystemServiceStub(registry),
            log=event_log_pb2_grpc.EventLogServiceStub(ingest),
            ledger=delivery_pb2_grpc.DeliveryServiceStub(delivery),
            health={"ingest": health_pb2_grpc.HealthStub(ingest), "delivery": health_pb2_grpc.HealthStub(delivery)},
            metadata=metadata,
        )
