"""Disable: sinks that are gone, and a registry that does not hear of them at once."""

import asyncio

import grpc
from hooktide.subscription.v1 import subscription_pb2 as pb
from hooktide.subscription.v1 import subscription_pb2_grpc

from services.delivery.subscriptions.disable import Disabler
from services.runtime.rpc.channel_and_server import open_channel
from tests.delivery.system import TOKEN


async def test_the_registry_is_told_again_until_it_hears() -> None:
    """The registry is unreachable at first; each sink is reported once, however often it answers 410 meanwhile."""
    told: list[pb.DisableSubscriptionRequest] = []
    heard = asyncio.Event()

    class Registry(subscription_pb2_grpc.SubscriptionServiceServicer):
        async def DisableSubscription(  # noqa: N802 - the name in the contract
            self, request: pb.DisableSubscriptionRequest, context: "grpc.aio.ServicerContext[object, object]"
        ) -> pb.DisableSubscriptionResponse:
            told.append(request)
            if len(told) < 3:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "away")
            heard.set()
            return pb.DisableSubscriptionResponse()

    server = grpc.aio.server()
    subscription_pb2_grpc.add_SubscriptionServiceServicer_to_server(Registry(), server)  # type: ignore[abstract]  # one call is enough
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with open_channel(f"127.0.0.1:{port}") as channel, asyncio.TaskGroup() as group:
        disabler = Disabler(channel, TOKEN)
        running = group.create_task(disabler.run())
        for _ in range(5):
            disabler.is_gone("sub_1", 7)
        await asyncio.wait_for(heard.wait(), 60)
        running.cancel()
    await server.stop(None)
    assert [(each.id, each.sink_revision) for each in told] == [("sub_1", 7)] * 3
    assert "410" in told[0].reason
