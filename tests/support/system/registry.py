"""Registry: the registry in this process, and a client that calls it as the other services do."""

import base64
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from hooktide.subscription.v1 import (
    access_pb2,
    access_pb2_grpc,
    catalogue_pb2_grpc,
    subscription_pb2,
    subscription_pb2_grpc,
    system_pb2,
    system_pb2_grpc,
)

from services.runtime.clock import Clock
from services.runtime.configuration.settings import SubscriptionSettings
from services.runtime.configuration.settings_reader import read_settings
from services.runtime.errors import Failure, failure_from_rpc
from services.runtime.rpc.channel_and_server import open_channel, service_metadata
from services.runtime.service_process import ServiceProcess
from services.subscription.app import running
from services.subscription.rules.sink_lookup import Resolve
from tests.support.dns import no_names

REGISTRY_FILES = ("subscription.db", "subscription.db-wal")
SINK = "https://consumer.example/hooks"
TOKEN = "hts_a-token-for-these-tests-only"
ADMIN_KEY_ID = "key_" + "7" * 32
SECRET_KEY = "k1:" + base64.b64encode(bytes(range(32))).decode()

Request = TypeVar("Request")
Response = TypeVar("Response")
Seen = subscription_pb2.WatchSubscriptionsResponse
Watching = grpc.aio.UnaryStreamCall[subscription_pb2.WatchSubscriptionsRequest, Seen]


@dataclasses.dataclass
class Client:
    """Stubs of the registry's services, and calls that tests make often."""

    channel: grpc.aio.Channel
    token: str
    process: ServiceProcess
    admin: str
    listen: str = ""

    def __post_init__(self) -> None:
        self.subscriptions = subscription_pb2_grpc.SubscriptionServiceStub(self.channel)
        self.catalogue = catalogue_pb2_grpc.CatalogueServiceStub(self.channel)
        self.access = access_pb2_grpc.AccessServiceStub(self.channel)
        self.system = system_pb2_grpc.SystemServiceStub(self.channel)

    async def call(self, method: grpc.aio.UnaryUnaryMultiCallable[Request, Response], request: Request) -> Response:
        """Make a call as a service does."""
        return await method(request, metadata=service_metadata(self.token), timeout=20)

    async def consumer(self, name: str = "Shop") -> str:
        """Create a consumer and return its id."""
        request = access_pb2.CreateConsumerRequest(consumer=access_pb2.Consumer(name=name))
        return (await self.call(self.access.CreateConsumer, request)).consumer.id

    async def key(self, role: access_pb2.Role.ValueType, consumer_id: str = "") -> access_pb2.CreateKeyResponse:
        """Create a key."""
        return await self.call(self.access.CreateKey, access_pb2.CreateKeyRequest(key=access_pb2.Key(role=role, consumer_id=consumer_id)))

    async def authenticate(self, clear: str) -> access_pb2.Key:
        """Return the key that a text authenticates."""
        return (await self.call(self.access.Authenticate, access_pb2.AuthenticateRequest(key=clear))).key

    async def subscribe(self, consumer_id: str, sink: str = SINK, types: Sequence[str] = ()) -> subscription_pb2.CreateSubscriptionResponse:
        """Create a subscription."""
        wanted = subscription_pb2.Subscription(sink=sink, types=types)
        request = subscription_pb2.CreateSubscriptionRequest(consumer_id=consumer_id, subscription=wanted)
        return await self.call(self.subscriptions.CreateSubscription, request)

    async def update(
        self, consumer_id: str, changed: subscription_pb2.Subscription, *paths: str, etag: str = ""
    ) -> subscription_pb2.Subscription:
        """Change the fields that the paths name."""
        request = subscription_pb2.UpdateSubscriptionRequest(
            consumer_id=consumer_id, subscription=changed, update_mask=FieldMask(paths=paths), etag=etag
        )
        return (await self.call(self.subscriptions.UpdateSubscription, request)).subscription

    async def delete(self, consumer_id: str, subscription_id: str) -> int:
        """Delete a subscription; return the revision."""
        request = subscription_pb2.DeleteSubscriptionRequest(consumer_id=consumer_id, id=subscription_id)
        return (await self.call(self.subscriptions.DeleteSubscription, request)).revision

    async def get(self, consumer_id: str, subscription_id: str) -> subscription_pb2.Subscription:
        """Return a subscription."""
        request = subscription_pb2.GetSubscriptionRequest(consumer_id=consumer_id, id=subscription_id)
        return (await self.call(self.subscriptions.GetSubscription, request)).subscription

    async def pause(self, consumer_id: str, subscription_id: str) -> subscription_pb2.Subscription:
        """Pause a subscription."""
        request = subscription_pb2.PauseSubscriptionRequest(consumer_id=consumer_id, id=subscription_id)
        return (await self.call(self.subscriptions.PauseSubscription, request)).subscription

    async def resume(self, consumer_id: str, subscription_id: str) -> subscription_pb2.Subscription:
        """Resume a subscription."""
        request = subscription_pb2.ResumeSubscriptionRequest(consumer_id=consumer_id, id=subscription_id)
        return (await self.call(self.subscriptions.ResumeSubscription, request)).subscription

    async def pause_consumer(self, consumer_id: str, key_id: str = ADMIN_KEY_ID) -> access_pb2.Consumer:
        """Pause a consumer."""
        return (await self.call(self.access.PauseConsumer, access_pb2.PauseConsumerRequest(id=consumer_id, key_id=key_id))).consumer

    async def resume_consumer(self, consumer_id: str) -> access_pb2.Consumer:
        """Resume a consumer."""
        return (await self.call(self.access.ResumeConsumer, access_pb2.ResumeConsumerRequest(id=consumer_id))).consumer

    async def pause_system(self, key_id: str = ADMIN_KEY_ID) -> system_pb2.System:
        """Pause all deliveries."""
        return (await self.call(self.system.PauseSystem, system_pb2.PauseSystemRequest(key_id=key_id))).system

    async def resume_system(self) -> system_pb2.System:
        """Resume deliveries."""
        return (await self.call(self.system.ResumeSystem, system_pb2.ResumeSystemRequest())).system

    async def rotate(self, request: subscription_pb2.RotateSecretRequest) -> subscription_pb2.SigningSecret:
        """Rotate a secret."""
        return (await self.call(self.subscriptions.RotateSecret, request)).secret

    async def secrets(self, consumer_id: str, subscription_id: str) -> list[str]:
        """Return the live secrets."""
        request = subscription_pb2.GetSecretsRequest(consumer_id=consumer_id, subscription_id=subscription_id)
        return [secret.secret for secret in (await self.call(self.subscriptions.GetSecrets, request)).secrets]

    async def revision(self) -> int:
        """Return the current revision."""
        return (await self.call(self.subscriptions.GetRevision, subscription_pb2.GetRevisionRequest())).revision

    @contextlib.asynccontextmanager
    async def watch(
        self, after_revision: int = 0, registry_id: str = "", change_id: str = "", slots: Iterable[int] = ()
    ) -> AsyncIterator[Watching]:
        """Watch; cancel the stream at the end."""
        request = subscription_pb2.WatchSubscriptionsRequest(
            after_revision=after_revision, registry_id=registry_id, after_change_id=change_id, slots=slots
        )
        call: Watching = self.subscriptions.WatchSubscriptions(request, metadata=service_metadata(self.token), timeout=60)
        try:
            yield call
        finally:
            call.cancel()


def registry_settings(folder: Path, **variables: str) -> SubscriptionSettings:
    """Return the settings of a registry with its data in a folder, on free ports unless `variables` say otherwise."""
    shared = {
        "HOOKTIDE_DATA_DIR": str(folder),
        "HOOKTIDE_SERVICE_TOKEN": TOKEN,
        "HOOKTIDE_SECRET_KEY": SECRET_KEY,
        "HOOKTIDE_SUBSCRIPTION_LISTEN": "127.0.0.1:0",
        "HOOKTIDE_SUBSCRIPTION_ADMIN_LISTEN": "127.0.0.1:0",
    }
    return read_settings(SubscriptionSettings, shared | variables)


@contextlib.asynccontextmanager
async def served(settings: SubscriptionSettings, clock: Clock | None = None, resolve: Resolve = no_names) -> AsyncIterator[Client]:
    """Run a registry and connect to it."""
    process = ServiceProcess("subscription")
    async with running(settings, process, clock, resolve) as addresses, open_channel(addresses.listen) as channel:
        yield Client(channel, settings.token(), process, addresses.admin, addresses.listen)


async def refused(call: Awaitable[Any]) -> Failure:
    """Return the failure with which a call ends."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return failure_from_rpc(caught.value)


async def until_checkpoint(call: Watching) -> tuple[list[Seen], subscription_pb2.Checkpoint]:
    """Return the items that a watch sends up to its next checkpoint, and that checkpoint."""
    items: list[Seen] = []
    while True:
        item = await call.read()
        assert isinstance(item, Seen), "the stream ended before a checkpoint"
        if item.WhichOneof("item") == "checkpoint":
            return items, item.checkpoint
        items.append(item)
