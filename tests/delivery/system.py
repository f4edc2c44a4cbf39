"""System: registry, ingest and delivery as real services on loopback, in this process."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hooktide.delivery.v1 import delivery_pb2, delivery_pb2_grpc
from hooktide.event.v1 import event_pb2
from hooktide.ingest.v1 import ingest_pb2, ingest_pb2_grpc
from hooktide.subscription.v1 import access_pb2, subscription_pb2

from services.delivery import app as delivery_app
from services.ingest import app as ingest_app
from services.runtime.configuration.settings import DeliverySettings, IngestSettings, SubscriptionSettings
from services.runtime.configuration.settings_reader import read_settings
from services.runtime.rpc.channel_and_server import open_channel, service_metadata
from services.runtime.service_process import ServiceProcess
from tests.support.system.registry import SECRET_KEY, TOKEN, Client, served
from tests.support.waiting import until_so

ENVIRON = {
    "HOOKTIDE_SERVICE_TOKEN": TOKEN,
    "HOOKTIDE_SECRET_KEY": SECRET_KEY,
    "HOOKTIDE_SINK_ALLOW": "http,127.0.0.0/8",
    "HOOKTIDE_DELIVERY_RETRY_DELAYS_SECONDS": "0.1,0.1,0.2,0.2,0.5,0.5,1,1,1",
    "HOOKTIDE_DELIVERY_BREAKER_SECONDS": "0.2",
    "HOOKTIDE_DELIVERY_CONNECT_TIMEOUT_SECONDS": "1",
    **{
        f"HOOKTIDE_{service}_{name}": "127.0.0.1:0"
        for service in ("SUBSCRIPTION", "INGEST", "DELIVERY")
        for name in ("LISTEN", "ADMIN_LISTEN")
    },
}
State = delivery_pb2.DeliveryState


@dataclass
class Delivering:
    """A running delivery service, and a client of it."""

    stub: "delivery_pb2_grpc.DeliveryServiceAsyncStub"
    process: ServiceProcess
    listen: str
    admin: str

    async def page(self, **filters: object) -> delivery_pb2.ListDeliveriesResponse:
        """Return a page of the deliveries that an administrator sees."""
        request = delivery_pb2.ListDeliveriesRequest(**({"consumer_id": "*", "page_size": 200} | filters))  # type: ignore[arg-type]  # fields by name
        return await self.stub.ListDeliveries(request, metadata=service_metadata(TOKEN))

    async def deliveries(self, **filters: object) -> list[delivery_pb2.Delivery]:
        """Return the newest deliveries that an administrator sees."""
        return list((await self.page(**filters)).deliveries)

    async def until(self, count: int, **filters: object) -> list[delivery_pb2.Delivery]:
        """Wait until there are exactly `count` deliveries of a kind."""
        found: list[delivery_pb2.Delivery] = []

        async def enough() -> bool:
            found[:] = await self.deliveries(**filters)
            return len(found) == count

        await until_so(enough)
        return found

    async def delivery(self, delivery_id: str) -> delivery_pb2.Delivery:
        """Return one delivery with its attempts."""
        request = delivery_pb2.GetDeliveryRequest(consumer_id="*", id=delivery_id)
        return (await self.stub.GetDelivery(request, metadata=service_metadata(TOKEN))).delivery


@dataclass
class System:
    """The services around delivery, and a consumer and keys that they know."""

    environ: dict[str, str]
    registry: Client
    consumer_id: str
    emitter_key: str
    ingest: "ingest_pb2_grpc.IngestServiceAsyncStub"

    @contextlib.asynccontextmanager
    async def delivering(self, **values: str) -> AsyncIterator[Delivering]:
        """Run a delivery service."""
        settings = read_settings(DeliverySettings, self.environ | values)
        process = ServiceProcess("delivery")
        async with delivery_app.running(settings, process) as addresses, open_channel(addresses.listen) as channel:
            yield Delivering(delivery_pb2_grpc.DeliveryServiceStub(channel), process, addresses.listen, addresses.admin)

    async def subscribe(
        self, sink: str, *types: str, consumer_id: str = "", secret: str = ""
    ) -> subscription_pb2.CreateSubscriptionResponse:
        """Create a subscription."""
        request = subscription_pb2.CreateSubscriptionRequest(
            consumer_id=consumer_id or self.consumer_id,
            subscription=subscription_pb2.Subscription(sink=sink, types=types),
            secret=secret,
        )
        return await self.registry.call(self.registry.subscriptions.CreateSubscription, request)

    async def publish(self, *events: event_pb2.CloudEvent) -> list[str]:
        """Publish events; return their ids."""
        return [receipt.event_id for receipt in await self.receipts(*events)]

    async def receipts(self, *events: event_pb2.CloudEvent) -> Sequence[ingest_pb2.PublishReceipt]:
        """Publish events; return their receipts."""
        metadata = (("authorization", f"Bearer {self.emitter_key}"),)
        answer = await self.ingest.PublishBatch(ingest_pb2.PublishBatchRequest(events=events), metadata=metadata)
        return [result.receipt for result in answer.results]


@contextlib.asynccontextmanager
async def running_system(directory: Path) -> AsyncIterator[System]:
    """Run registry and ingest."""
    environ = {**ENVIRON, "HOOKTIDE_DATA_DIR": str(directory)}
    async with contextlib.AsyncExitStack() as stack:
        registry = await stack.enter_async_context(served(read_settings(SubscriptionSettings, environ)))
        environ["HOOKTIDE_SUBSCRIPTION_TARGET"] = registry.listen
        addresses = await stack.enter_async_context(ingest_app.running(read_settings(IngestSettings, environ), ServiceProcess("ingest")))
        channel = await stack.enter_async_context(open_channel(addresses.listen))
        environ["HOOKTIDE_INGEST_TARGET"] = addresses.listen
        consumer_id = await registry.consumer()
        key = await registry.key(access_pb2.ROLE_EMITTER)
        yield System(environ, registry, consumer_id, key.clear_text, ingest_pb2_grpc.IngestServiceStub(channel))
