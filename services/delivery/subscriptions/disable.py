"""Disable: tells the registry which sinks have answered 410 Gone, so that it disables their subscriptions.

dispatcher → [disable] ─gRPC─▶ registry ─Watch─▶ replica

Law: each report names the sink that answered. If the subscription has another sink by now, the registry does not disable it.
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
    """Disables subscriptions, with one report at a time for each sink."""

    def __init__(self, registry: grpc.aio.Channel, service_token: ServiceToken) -> None:
        self._stub = subscription_pb2_grpc.SubscriptionServiceStub(registry)
        self._metadata = service_metadata(service_token)
        # Bounded by the number of sinks that are gone: each is in the queue once.
        self._wanted: asyncio.Queue[tuple[str, int]] = asyncio.Queue()
        self._known: set[tuple[str, int]] = set()

    def is_gone(self, subscription_id: str, sink_revision: int) -> None:
        """Note that a sink is gone; `sink_revision` is the revision of the sink that answered."""
        sink = (subscription_id, sink_revision)
        if sink not in self._known:
            self._known.add(sink)
            self._wanted.put_nowait(sink)

    async def run(self) -> None:
        """Report to the registry for ever. A report that fails goes to the end of the queue."""
        while True:
            sink = await self._wanted.get()
            if await self._disable(*sink):
                self._known.discard(sink)
            else:
                self._wanted.put_nowait(sink)

    async def _disable(self, subscription_id: str, sink_revision: int) -> bool:
        """Report one sink; return whether the registry has answered, be it that the sink or subscription is no longer there."""
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
