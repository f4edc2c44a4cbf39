"""Sink verification: a running registry and delivery service, and sinks that answer as a test says."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import grpc
import pytest
from aiohttp import web
from hooktide.delivery.v1 import delivery_pb2, delivery_pb2_grpc
from hooktide.subscription.v1 import subscription_pb2 as pb

from services.delivery.app import running as running_delivery
from services.runtime.configuration.settings import DeliverySettings, SubscriptionSettings
from services.runtime.configuration.settings_reader import read_settings
from services.runtime.errors import Reason
from services.runtime.rpc.channel_and_server import open_channel, service_metadata
from services.runtime.service_process import ServiceProcess
from tests.support.system.registry import SECRET_KEY, Client, refused, served, until_checkpoint
from tests.support.waiting import PATIENCE_S, until_so
from tests.support.webhook_receivers.hostile_receivers import HostileServer, hostile, silent

ORIGIN = "hooks.example.com"
GRANTED, PENDING = pb.VERIFICATION_STATE_GRANTED, pb.VERIFICATION_STATE_PENDING
REFUSED, FAILED = pb.VERIFICATION_STATE_REFUSED, pb.VERIFICATION_STATE_FAILED


@dataclass
class Sink:
    """A sink that records each question."""

    url: str = ""
    status: int = 204
    headers: Mapping[str, str] = field(default_factory=dict)
    repeated: str = ""
    """The header of the question that the sink repeats as the origin that it allows."""
    asked: list[tuple[str, str, Mapping[str, str]]] = field(default_factory=list)

    async def answer(self, request: web.BaseRequest) -> web.Response:
        """Answer every request alike."""
        self.asked.append((request.method, str(request.rel_url), {name.lower(): value for name, value in request.headers.items()}))
        permitted = {"WebHook-Allowed-Origin": request.headers[self.repeated]} if self.repeated else {}
        return web.Response(status=self.status, headers={**self.headers, **permitted})


@contextlib.asynccontextmanager
async def listening() -> AsyncIterator[Sink]:
    """Run a sink on a free port."""
    sink = Sink()
    runner = web.ServerRunner(web.Server(sink.answer))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    sink.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hooks?tenant=7"
    try:
        yield sink
    finally:
        await runner.cleanup()


@dataclass
class World:
    """The running services, and one consumer."""

    registry: Client
    delivery: grpc.aio.Channel
    sink: Sink
    owner: str

    async def subscription(self, **wanted: object) -> pb.Subscription:
        """Create a subscription."""
        subscription = pb.Subscription(**({"sink": self.sink.url} | wanted))  # type: ignore[arg-type]  # whatever a test wants
        request = pb.CreateSubscriptionRequest(consumer_id=self.owner, subscription=subscription)
        return (await self.registry.call(self.registry.subscriptions.CreateSubscription, request)).subscription

    async def verified(self, made: pb.Subscription, consumer_id: str = "*") -> pb.Subscription:
        """Let the service ask a sink, and return the subscription afterwards."""
        request = delivery_pb2.VerifySinkRequest(consumer_id=consumer_id, subscription_id=made.id)
        stub = delivery_pb2_grpc.DeliveryServiceStub(self.delivery)
        await stub.VerifySink(request, metadata=service_metadata(self.registry.token), timeout=20)
        get = pb.GetSubscriptionRequest(consumer_id="*", id=made.id)
        return (await self.registry.call(self.registry.subscriptions.GetSubscription, get)).subscription


@contextlib.asynccontextmanager
async def running_world(folder: Path, handshake: str = "required", **more: str) -> AsyncIterator[World]:
    """Run a registry that wants such handshakes, a delivery service without an event log, and a sink."""
    environ = {
        "HOOKTIDE_DATA_DIR": str(folder),
        "HOOKTIDE_SERVICE_TOKEN": "hts_a-token-for-this-test-only",
        "HOOKTIDE_SECRET_KEY": SECRET_KEY,
        "HOOKTIDE_SINK_ALLOW": "http,127.0.0.0/8",
        "HOOKTIDE_SINK_HANDSHAKE": handshake,
        "HOOKTIDE_ORIGIN": ORIGIN,
        "HOOKTIDE_PUBLIC_URL": "https://events.example.com/hooktide/",
    }
    environ |= {
        f"HOOKTIDE_{service}_{kind}": "127.0.0.1:0" for service in ("SUBSCRIPTION", "DELIVERY") for kind in ("LISTEN", "ADMIN_LISTEN")
    }
    async with served(read_settings(SubscriptionSettings, environ)) as registry, listening() as sink:
        target = {"HOOKTIDE_SUBSCRIPTION_TARGET": registry.listen, "HOOKTIDE_INGEST_TARGET": "127.0.0.1:1"}
        settings = read_settings(DeliverySettings, environ | target | more)
        async with running_delivery(settings, ServiceProcess("delivery")) as addresses, open_channel(addresses.listen) as channel:
            yield World(registry, channel, sink, await registry.consumer())


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A world for one test."""
    async with running_world(tmp_path) as one:
        yield one


async def test_a_sink_is_asked_at_its_exact_url_and_its_consent_is_kept(world: World) -> None:
    world.sink.headers = {"WebHook-Allowed-Origin": ORIGIN, "WebHook-Allowed-Rate": "120"}
    settings = pb.ProtocolSettings(headers={"x-team": "billing"})
    credential = pb.SinkCredential(access_token=pb.AccessTokenCredential(token="t"))
    made = await world.subscription(
        config=pb.SubscriptionConfig(rate_per_second=50), protocol_settings=settings, sink_credential=credential
    )

    after = await world.verified(made)

    assert (after.state, after.verification.state, after.verification.rate_per_minute) == (pb.SUBSCRIPTION_STATE_ACTIVE, GRANTED, 120)
    ((method, path, headers),) = world.sink.asked
    assert (method, path) == ("OPTIONS", "/hooks?tenant=7")
    assert headers["webhook-request-origin"] == ORIGIN
    assert headers["webhook-request-rate"] == "3000"
    assert headers["webhook-request-callback"].startswith("https://events.example.com/hooktide/v1/verifications/")
    assert (headers["x-team"], headers["authorization"], headers["user-agent"]) == ("billing", "Bearer t", "Hooktide/0.1")


async def test_the_address_that_a_sink_is_given_leads_to_its_consent(world: World) -> None:
    made = await world.subscription()
    after = await world.verified(made)
    assert (after.state, after.verification.state) == (pb.SUBSCRIPTION_STATE_UNVERIFIED, PENDING)
    token = world.sink.asked[0][2]["webhook-request-callback"].rpartition("/")[2]
    await world.registry.call(world.registry.subscriptions.ConfirmVerification, pb.ConfirmVerificationRequest(token=token))
    after = await world.registry.update(world.owner, pb.Subscription(id=made.id, source="/s"), "source")
    assert (after.state, after.verification.state) == (pb.SUBSCRIPTION_STATE_ACTIVE, GRANTED)


@pytest.mark.parametrize("status", [200, 204, 301, 405, 500])
async def test_a_status_is_neither_consent_nor_refusal(world: World, status: int) -> None:
    world.sink.status = status
    made = await world.subscription()
    assert (await world.verified(made)).verification.state == PENDING
    world.sink.headers = {"webhook-allowed-origin": "*"}
    assert (await world.verified(made)).verification.state == GRANTED
    world.sink.headers = {"webhook-allowed-origin": "other.example.com"}
    after = await world.verified(made)
    assert (after.state, after.verification.state) == (pb.SUBSCRIPTION_STATE_UNVERIFIED, REFUSED)
    assert "other.example.com" in after.state_reason


async def test_a_sink_that_cannot_be_asked_is_told_of_without_its_address(world: World) -> None:
    made = await world.subscription(sink="http://127.0.0.1:2/hooks")
    after = await world.verified(made)
    assert (after.state, after.verification.state) == (pb.SUBSCRIPTION_STATE_UNVERIFIED, FAILED)
    assert after.verification.detail
    assert "127.0.0.1" not in after.verification.detail


async def test_what_the_registry_refuses_is_what_the_caller_is_told(world: World) -> None:
    made, other = await world.subscription(), await world.registry.consumer()
    assert (await refused(world.verified(made, other))).reason is Reason.SUBSCRIPTION_NOT_FOUND
    assert (await refused(world.verified(made, "nobody"))).reason is Reason.INVALID_ARGUMENT
    assert world.sink.asked == []
    assert (await world.verified(made, world.owner)).verification.state == PENDING


async def test_without_an_address_of_ours_silence_is_a_refusal(tmp_path: Path) -> None:
    async with running_world(tmp_path, HOOKTIDE_PUBLIC_URL="") as world:
        assert (await world.verified(await world.subscription())).verification.state == REFUSED
        assert "webhook-request-callback" not in world.sink.asked[0][2]


async def test_without_a_name_of_ours_no_sink_is_asked(tmp_path: Path) -> None:
    async with running_world(tmp_path, HOOKTIDE_ORIGIN="") as world:
        failure = await refused(world.verified(await world.subscription()))
        assert (failure.reason, "HOOKTIDE_ORIGIN" in failure.message) == (Reason.STATE_CONFLICT, True)
        assert world.sink.asked == []


@pytest.mark.parametrize("repeated", ["webhook-request-callback", "authorization"])
async def test_a_sink_that_repeats_its_question_tells_its_asker_nothing(world: World, repeated: str) -> None:
    """Otherwise any reader of the subscription could consent in the sink's name."""
    world.sink.repeated = repeated
    credential = pb.SinkCredential(access_token=pb.AccessTokenCredential(token="canary"))
    after = await world.verified(await world.subscription(sink_credential=credential))
    token = world.sink.asked[0][2]["webhook-request-callback"].rpartition("/")[2]
    assert (after.state, after.verification.state) == (pb.SUBSCRIPTION_STATE_UNVERIFIED, REFUSED)
    assert "[secret]" in after.verification.detail
    assert token not in str(after)
    assert "canary" not in str(after)


async def hanging_subscriptions(world: World, server: HostileServer, count: int) -> list[pb.Subscription]:
    """Let another consumer subscribe sinks that never answer."""
    attacker = await world.registry.consumer("attacker")
    return [await replace(world, owner=attacker).subscription(sink=server.url) for _ in range(count)]


async def test_verifications_of_one_consumer_that_hang_keep_nobody_else_waiting(world: World) -> None:
    """The consumer has its share, and a call beyond that share fails at once."""
    world.sink.headers = {"WebHook-Allowed-Origin": ORIGIN}
    async with hostile(silent) as server:
        made = await hanging_subscriptions(world, server, 6)
        asked = [asyncio.ensure_future(refused(world.verified(each, each.consumer_id))) for each in made]
        async with asyncio.timeout(PATIENCE_S):
            while len(server.requests) < 4 or sum(each.done() for each in asked) < 2:  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(0.01)
        assert {each.result().reason for each in asked if each.done()} == {Reason.OVERLOADED}
        assert (await world.verified(await world.subscription(), world.owner)).verification.state == GRANTED
        assert len(server.requests) == 4
        for each in asked:
            each.cancel()
        await asyncio.wait(asked)


# Verification without a call


async def consented(world: World, made: pb.Subscription, state: pb.VerificationState.ValueType = GRANTED) -> pb.Subscription:
    """Wait until the verification of a subscription's sink is in a state; return the subscription."""
    get = pb.GetSubscriptionRequest(consumer_id="*", id=made.id)
    found = made

    async def known() -> bool:
        nonlocal found
        found = (await world.registry.call(world.registry.subscriptions.GetSubscription, get)).subscription
        return found.verification.state == state

    await until_so(known)
    return found


async def test_by_best_effort_a_sink_is_asked_and_sent_to_meanwhile(tmp_path: Path) -> None:
    """Delivery asks a sink once when the subscription is created, and once for each new sink."""
    async with running_world(tmp_path, "best_effort") as world:
        world.sink.headers = {"WebHook-Allowed-Origin": ORIGIN, "WebHook-Allowed-Rate": "120"}
        made = await world.subscription()
        assert made.state == pb.SUBSCRIPTION_STATE_ACTIVE
        after = await consented(world, made)
        assert (after.state, after.verification.rate_per_minute) == (pb.SUBSCRIPTION_STATE_ACTIVE, 120)
        await world.registry.update(world.owner, pb.Subscription(id=made.id, source="/s"), "source")
        world.sink.headers = {"WebHook-Allowed-Origin": "other.example.com"}
        moved = await world.registry.update(world.owner, pb.Subscription(id=made.id, sink=f"{world.sink.url}&x=1"), "sink")
        assert (moved.state, moved.HasField("verification")) == (pb.SUBSCRIPTION_STATE_ACTIVE, False)
        refused_by = await consented(world, made, REFUSED)
        assert refused_by.state == pb.SUBSCRIPTION_STATE_ACTIVE
        assert [(method, path) for method, path, _ in world.sink.asked] == [
            ("OPTIONS", "/hooks?tenant=7"),
            ("OPTIONS", "/hooks?tenant=7&x=1"),
        ]


async def test_by_best_effort_a_sink_that_cannot_be_asked_is_not_asked_again_and_again(tmp_path: Path) -> None:
    async with running_world(tmp_path, "best_effort") as world:
        made = await world.subscription(sink="http://127.0.0.1:2/hooks")
        after = await consented(world, made, FAILED)
        assert after.state == pb.SUBSCRIPTION_STATE_ACTIVE
        assert await world.registry.revision() == made.revision + 1


async def test_by_best_effort_what_is_known_is_not_asked_again_at_the_next_start(tmp_path: Path) -> None:
    async with running_world(tmp_path, "best_effort") as world:
        world.sink.headers = {"WebHook-Allowed-Origin": "*"}
        made = await consented(world, await world.subscription())
    async with running_world(tmp_path, "best_effort") as world:
        assert (await consented(world, made)).verification.state == GRANTED
        assert world.sink.asked == []


@pytest.mark.parametrize("handshake", ["off", "required"])
async def test_otherwise_no_sink_is_asked_that_nobody_has_called_for(tmp_path: Path, handshake: str) -> None:
    async with running_world(tmp_path, handshake) as world:
        made = await world.subscription()
        item = await watched(world.registry, made.id)
        assert not item.consent_wanted
    async with running_world(tmp_path, "best_effort") as world:
        # When the mode is best effort, the sink is asked.
        await consented(world, made, FAILED)


async def watched(registry: Client, name: str) -> pb.WatchedSubscription:
    """Return a subscription as a watch sends it to delivery."""
    async with registry.watch() as stream:
        items, _ = await until_checkpoint(stream)
    return next(item.put for item in items if item.put.subscription.id == name)


async def test_sinks_of_one_consumer_that_hang_keep_no_others_from_being_asked(tmp_path: Path) -> None:
    async with running_world(tmp_path, "best_effort") as world, hostile(silent) as server:
        world.sink.headers = {"WebHook-Allowed-Origin": ORIGIN}
        await hanging_subscriptions(world, server, 40)
        assert (await consented(world, await world.subscription())).verification.state == GRANTED
        assert len(server.requests) <= 4
