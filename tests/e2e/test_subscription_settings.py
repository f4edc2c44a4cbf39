"""Subscription settings, over REST with all four services as processes; and consent before anything is sent."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from tests.support.consumers import new_consumer
from tests.support.service_spawner import shared_spawner
from tests.support.system.processes import System, running_system
from tests.support.waiting import PATIENCE_S, until
from tests.support.webhook_receivers.receiver import Receiver

ORIGIN = "hooks.example.com"


async def test_a_subscription_made_over_rest_is_delivered_as_it_asks(system: System, receiver: Receiver) -> None:
    consumer = await new_consumer(system, "particular")
    endpoint = receiver.endpoint("particular")
    subscription_id = await consumer.subscribe(
        endpoint,
        ["wish.made"],
        sinkcredential={"credentialtype": "HEADER", "name": "X-Key", "value": "open sesame"},
        protocolsettings={"headers": {"x-team": "billing"}, "content_mode": "binary", "signatures": ["v1", "v1a"]},
        config={"rate_per_second": 50, "in_flight_max": 2, "retry": {"delays_seconds": [1]}},
    )
    _, shown = await system.call("GET", f"/v1/subscriptions/{subscription_id}/secret", consumer.key)
    async with system.emitter() as emitter:
        await emitter.emit(type="wish.made", source="/shop", data={"id": 7})
    await until(lambda: endpoint.arrivals, PATIENCE_S, "the webhook")
    (arrival,) = endpoint.arrivals
    assert (arrival.headers["x-key"], arrival.headers["x-team"], arrival.headers["ce-type"]) == ("open sesame", "billing", "wish.made")
    assert json.loads(arrival.body) == {"id": 7}
    assert arrival.verified
    keys = shown["keys"]
    assert isinstance(keys, list)
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(keys[0]["public_key"].removeprefix("whpk_")))
    signed = f"{arrival.event_id}.{arrival.headers['webhook-timestamp']}.".encode() + arrival.body
    (signature,) = [each[4:] for each in arrival.headers["webhook-signature"].split() if each.startswith("v1a,")]
    key.verify(base64.b64decode(signature), signed)
    status, tested = await system.call("POST", f"/v1/subscriptions/{subscription_id}/test", consumer.key)
    assert (status, tested["attempt"]["outcome"], tested["attempt"]["status"]) == (200, "delivered", 200)  # type: ignore[index]  # JSON
    test = endpoint.arrivals[-1]
    assert (test.event_id, test.headers["ce-type"], test.headers["x-key"]) == (tested["event_id"], "hooktide.test", "open sesame")
    assert test.verified


@pytest_asyncio.fixture
async def strict(tmp_path: Path) -> AsyncIterator[System]:
    """A system that sends nothing without consent."""
    settings = {"HOOKTIDE_SINK_HANDSHAKE": "required", "HOOKTIDE_ORIGIN": ORIGIN}
    async with running_system(tmp_path, settings, spawn=shared_spawner().spawn) as running:
        yield running


async def test_nothing_is_sent_before_the_sink_consents(strict: System) -> None:
    """Then the sink learns who sends, and does not get more requests than it allows."""
    posts: list[dict[str, str]] = []
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        if request.method == "OPTIONS":
            asked.append(request.headers["WebHook-Request-Origin"])
            consent = {"WebHook-Allowed-Origin": ORIGIN, "WebHook-Allowed-Rate": "6000"} if len(asked) > 1 else {}
            return web.Response(headers=consent)
        posts.append({name.lower(): value for name, value in request.headers.items()})
        return web.Response()

    runner = web.ServerRunner(web.Server(answer))  # type: ignore[arg-type]  # one handler for every request
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    consumer = await new_consumer(strict, "asked first")
    sink = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    _, made = await strict.call("POST", "/v1/subscriptions", consumer.key, {"sink": sink, "types": ["consent.given"]})
    path = f"/v1/subscriptions/{made['id']}"
    async with strict.emitter() as emitter:
        await emitter.emit(type="consent.given", source="/shop", data=1)
        status, first = await strict.call("POST", f"{path}/verify", consumer.key)
        assert (status, first["state"]) == (200, "unverified")
        status, second = await strict.call("POST", f"{path}/verify", consumer.key)
        assert (status, second["state"]) == (200, "active")
        receipt = await emitter.emit(type="consent.given", source="/shop", data=2)
    await until(lambda: posts, PATIENCE_S, "the webhook")
    await asyncio.wait_for(_delivered(strict, consumer.key), PATIENCE_S)
    assert [(each["webhook-id"], each["webhook-request-origin"]) for each in posts] == [(receipt.event_id, ORIGIN)]
    assert asked == [ORIGIN, ORIGIN]
    await runner.cleanup()


async def _delivered(system: System, key: str) -> None:
    while True:
        _, page = await system.call("GET", "/v1/deliveries?state=delivered", key)
        if page["items"]:
            return
        await asyncio.sleep(0.02)
