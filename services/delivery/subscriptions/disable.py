"""Disable: tells the registry of sinks that have said that they are gone for good.

push → dispatch → [disable] ─gRPC─▶ registry ─Watch─▶ replica

Law: what it says is of the sink that was asked: where the subscription has another one by now, the registry leaves it be.
"""

import asyncio

import grpc
from hooktide.subscription.v1 import subscription_pb2, subscription_pb2_grpc

from services.runtime.errors import Reason, failure_from_rpc
from services.runtime.logs import logger
from services.runtime.rpc.access import ServiceToken
from services.runtime.rpc.channel_and_server import service_metadata

GONE = 410
REASON = "The endpoint answered 410 Gone; another sink switches the subscription on again."
_TRIES = 5
_BACKOFF_FIRST_S = 0.2
_CALL_S = 5.0


class Disabler:
    """Disables subscriptions, each sink's once at a time."""

    def __init__(self, registry: grpc.aio.Channel, service_token: ServiceToken) -> None:
        self._stub = subscription_pb2_grpc.SubscriptionServiceStub(registry)
        self._metadata = service_metadata(service_token)
        # As many as there are subscriptions at most: a sink stands in it once.
        self._wanted: asyncio.Queue[tuple[str, int]] = asyncio.Queue()
        self._known: set[tuple[str, int]] = set()

    def is_gone(self, subscription_id: str, sink_revision: int) -> None:
        """Note that a sink is gone; what it was asked by is its revision."""
        sink = (subscription_id, sink_revision)
        if sink not in self._known:
            self._known.add(sink)
            self._wanted.put_nowait(sink)

    async def run(self) -> None:
        """Tell the registry, for ever. What it cannot be told for a while stands back behind the others."""
        while True:
            sink = await self._wanted.get()
            if await self._disable(*sink):
                self._known.discard(sink)
            else:
                self._wanted.put_nowait(sink)

    async def _disable(self, subscription_id: str, sink_revision: int) -> bool:
        """Say whether the registry has heard."""
        request = subscription_pb2.DisableSubscriptionRequest(id=subscription_id, sink_revision=sink_revision, reason=REASON)
        for number in range(_TRIES):
            try:
                await self._stub.DisableSubscription(request, metadata=self._metadata, timeout=_CALL_S)
            except grpc.aio.AioRpcError as error:
                reason = failure_from_rpc(error).reason
                if reason in {Reason.ETAG_MISMATCH, Reason.SUBSCRIPTION_NOT_FOUND}:
                    return True
                logger().warning("disable.failed", subscription=subscription_id, reason=reason.name, tries=number + 1)
                await asyncio.sleep(_BACKOFF_FIRST_S * 2**number)
            else:
                logger().info("subscription.gone", subscription=subscription_id)
                return True
        return False
