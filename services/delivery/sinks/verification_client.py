"""Verification client: begins a verification at the registry, and reports its result there.

sink_verification → [verification_client: wire] ─gRPC─▶ registry
"""

from typing import NamedTuple

import grpc
from hooktide.subscription.v1 import subscription_pb2 as pb
from hooktide.subscription.v1 import subscription_pb2_grpc

from services.delivery.request.request_settings import Subscription
from services.delivery.sinks.verification_protocol import Verification
from services.delivery.sinks.wire import verification_message
from services.delivery.subscriptions.wire import subscription_of
from services.runtime.consumer_scope import Scope
from services.runtime.errors import failure_from_rpc
from services.runtime.rpc.access import ServiceToken
from services.runtime.rpc.channel_and_server import service_metadata

_CALL_S = 5.0


class BegunVerification(NamedTuple):
    """What a verification needs: the subscription, its owner's rate limit, and the token with which the sink may consent later."""

    subscription: Subscription
    configured_rate_per_second: float | None
    callback_token: str


class VerificationClient:
    """Calls of SubscriptionService."""

    def __init__(self, channel: grpc.aio.Channel, service_token: ServiceToken) -> None:
        self._stub = subscription_pb2_grpc.SubscriptionServiceStub(channel)
        self._metadata = service_metadata(service_token)

    async def begin(self, scope: Scope, subscription_id: str) -> BegunVerification:
        """Begin to verify the sink of a subscription in a scope.

        Raises `Failure`, with SUBSCRIPTION_NOT_FOUND, STATE_CONFLICT or OVERLOADED if the registry refuses.
        """
        request = pb.BeginVerificationRequest(consumer_id=scope.text, subscription_id=subscription_id)
        try:
            begun = await self._stub.BeginVerification(request, metadata=self._metadata, timeout=_CALL_S)
        except grpc.aio.AioRpcError as error:
            raise failure_from_rpc(error) from None
        config = begun.subscription.subscription.config
        rate_per_second = config.rate_per_second if config.HasField("rate_per_second") else None
        return BegunVerification(subscription_of(begun.subscription), rate_per_second, begun.callback_token)

    async def report(self, subscription_id: str, sink_revision: int, verification: Verification) -> None:
        """Report the result for the sink that the subscription had at a revision.

        Raises `Failure`, with ETAG_MISMATCH if the subscription has another sink by now.
        """
        request = pb.ReportVerificationRequest(
            subscription_id=subscription_id, sink_revision=sink_revision, verification=verification_message(verification)
        )
        try:
            await self._stub.ReportVerification(request, metadata=self._metadata, timeout=_CALL_S)
        except grpc.aio.AioRpcError as error:
            raise failure_from_rpc(error) from None
