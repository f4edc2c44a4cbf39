"""Disable reports: the reports to a registry that does not hear of them at once."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, cast

import grpc
from hooktide.subscription.v1 import subscription_pb2 as pb

from services.delivery.model import SubscriptionStatus
from services.delivery.request.request_settings import RequestSettings, Subscription
from services.delivery.subscriptions.disable_reports import GONE_REASON, REPORTS_AT_ONCE, DisableReports
from services.delivery.subscriptions.registry_client import RegistryClient
from services.runtime.clock import SystemClock
from services.runtime.rpc.channel_and_server import open_channel
from tests.support.system.registry import TOKEN
from tests.support.waiting import PATIENCE_S, until


def subscription(subscription_id: str) -> Subscription | None:
    """Return a subscription of the consumer in its id, "sub_<consumer>_<number>"."""
    consumer = subscription_id.split("_")[1]
    if consumer == "nobody":
        return None
    return Subscription(subscription_id, consumer, "", (), "", SubscriptionStatus.ACTIVE, 1, RequestSettings())


@dataclass
class Registry:
    """A registry that refuses its first calls, and holds the others while `open` is not set."""

    refused: int = 0
    calls: list[pb.DisableSubscriptionRequest] = field(default_factory=list)
    under_way: Counter[str] = field(default_factory=Counter)
    open: asyncio.Event = field(default_factory=asyncio.Event)

    async def disable(
        self, request: pb.DisableSubscriptionRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.DisableSubscriptionResponse:
        """Take a report."""
        self.calls.append(request)
        if len(self.calls) <= self.refused:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "away")
        self.under_way[request.id.split("_")[1]] += 1
        await self.open.wait()
        self.under_way[request.id.split("_")[1]] -= 1
        return pb.DisableSubscriptionResponse()


@contextlib.asynccontextmanager
async def reporting(registry: Registry) -> AsyncIterator[DisableReports]:
    """Run the reports to a registry."""
    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(
        cast("Any", registry.disable), pb.DisableSubscriptionRequest.FromString, pb.DisableSubscriptionResponse.SerializeToString
    )
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("hooktide.subscription.v1.SubscriptionService", {"DisableSubscription": handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with open_channel(f"127.0.0.1:{port}") as channel, asyncio.TaskGroup() as group:
        reports = DisableReports(RegistryClient(channel, TOKEN, SystemClock()), subscription)
        running = group.create_task(reports.run())
        yield reports
        running.cancel()
    await server.stop(None)


async def test_the_registry_is_told_again_until_it_hears() -> None:
    """The registry is unreachable at first; each sink is reported once, however often it answers 410 meanwhile."""
    registry = Registry(refused=2)
    registry.open.set()
    async with reporting(registry) as reports:
        for _ in range(5):
            reports.report("sub_a_1", 7, GONE_REASON)
        await until(lambda: len(registry.calls) == 3, PATIENCE_S, "the third report")
    assert [(each.id, each.sink_revision) for each in registry.calls] == [("sub_a_1", 7)] * 3
    assert "410" in registry.calls[0].reason


async def test_several_reports_are_under_way_at_once_and_no_consumer_has_all_of_them() -> None:
    registry = Registry()
    async with reporting(registry) as reports:
        for number in range(50):
            reports.report(f"sub_a_{number}", 7, GONE_REASON)
        await until(lambda: registry.under_way["a"] == REPORTS_AT_ONCE.owner_permits, PATIENCE_S, "one consumer's share")
        for consumer in "bcdefg":
            for number in range(50):
                reports.report(f"sub_{consumer}_{number}", 7, GONE_REASON)
        await until(lambda: registry.under_way.total() == REPORTS_AT_ONCE.permits, PATIENCE_S, "all permits")
        assert max(registry.under_way.values()) == REPORTS_AT_ONCE.owner_permits
        assert len(registry.calls) == REPORTS_AT_ONCE.permits
        registry.open.set()
        await until(lambda: len(registry.calls) == 7 * 50, PATIENCE_S, "every report")
    assert len({each.id for each in registry.calls}) == 7 * 50


async def test_a_subscription_that_is_deleted_is_not_reported() -> None:
    registry = Registry()
    registry.open.set()
    async with reporting(registry) as reports:
        reports.report("sub_nobody_1", 7, GONE_REASON)
        reports.report("sub_a_1", 7, GONE_REASON)
        await until(lambda: len(registry.calls) == 1, PATIENCE_S, "the report")
    assert [each.id for each in registry.calls] == ["sub_a_1"]
