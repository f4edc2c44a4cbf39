"""Registry client: watches the registry's subscriptions, and disables a subscription.

registry_watch, disable_reports → [registry_client: wire, revision_client] ─gRPC─▶ registry
"""

from collections.abc import AsyncGenerator, Collection
from typing import NamedTuple

import grpc
from hooktide.subscription.v1 import subscription_pb2 as pb
from hooktide.subscription.v1 import subscription_pb2_grpc

from services.delivery.request.request_settings import Subscription
from services.delivery.subscriptions.revision_client import RevisionClient
from services.delivery.subscriptions.wire import subscription_of
from services.runtime.clock import Clock
from services.runtime.errors import failure_from_rpc
from services.runtime.ids import slot_of
from services.runtime.rpc.access import ServiceToken
from services.runtime.rpc.channel_and_server import service_metadata

_CALL_S = 5.0


class Checkpoint(NamedTuple):
    """A revision that a watch has reached: it has sent every change up to there."""

    revision: int = 0
    registry_id: str = ""
    change_id: str = ""
    """The id of the change at this revision; empty if it is not known."""
    system_paused: bool = False
    """Whether the operator has paused all deliveries, at this revision or a later one."""


class Put(NamedTuple):
    """A subscription that exists, or has changed."""

    subscription: Subscription
    verification_wanted: bool
    """Whether its sink must be verified."""


class Deleted(NamedTuple):
    """A subscription that was deleted."""

    subscription_id: str


class ConsumerPause(NamedTuple):
    """A consumer that was paused or resumed."""

    consumer_id: str
    paused: bool


WatchItem = Put | Deleted | ConsumerPause | Checkpoint
FROM_THE_START = Checkpoint()


class RegistryClient:
    """Calls of SubscriptionService."""

    def __init__(self, channel: grpc.aio.Channel, service_token: ServiceToken, clock: Clock, slots: Collection[int] | None = None) -> None:
        """Watch the subscriptions of these slots only; None: all."""
        self.revisions = RevisionClient(channel, service_token, clock)
        """Asks for the registry's revision, over a stream of its own."""
        self._stub = subscription_pb2_grpc.SubscriptionServiceStub(channel)
        self._metadata = service_metadata(service_token)
        self._slots = slots

    async def watch(self, after: Checkpoint) -> AsyncGenerator[WatchItem, None]:
        """Yield every change after a checkpoint; after `FROM_THE_START`, first a snapshot.

        A snapshot is the consumers that are paused, then every subscription, then a checkpoint.
        Raises `Failure` when the watch ends, with REVISION_COMPACTED if the registry no longer has the change at the checkpoint.
        """
        request = pb.WatchSubscriptionsRequest(
            after_revision=after.revision, registry_id=after.registry_id, after_change_id=after.change_id
        )
        call = self._stub.WatchSubscriptions(request, metadata=self._metadata)
        try:
            async for message in call:
                match message.WhichOneof("item"):
                    case "put" if self._slots is None or slot_of(message.put.subscription.id) in self._slots:
                        yield Put(subscription_of(message.put), message.put.consent_wanted)
                    case "deleted":
                        yield Deleted(message.deleted.id)
                    case "consumer_pause":
                        yield ConsumerPause(message.consumer_pause.consumer_id, message.consumer_pause.paused)
                    case "checkpoint":
                        reached = message.checkpoint
                        yield Checkpoint(reached.revision, reached.registry_id, reached.change_id, reached.system_paused)
        except grpc.aio.AioRpcError as error:
            raise failure_from_rpc(error) from error
        finally:
            call.cancel()

    async def disable(self, subscription_id: str, sink_revision: int, reason: str) -> None:
        """Disable a subscription because of the sink that it had at a revision.

        Raises `Failure`, with ETAG_MISMATCH if it has another sink by now, and with SUBSCRIPTION_NOT_FOUND if it is deleted.
        """
        request = pb.DisableSubscriptionRequest(id=subscription_id, sink_revision=sink_revision, reason=reason)
        try:
            await self._stub.DisableSubscription(request, metadata=self._metadata, timeout=_CALL_S)
        except grpc.aio.AioRpcError as error:
            raise failure_from_rpc(error) from error
