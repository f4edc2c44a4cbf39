"""Readiness: what the gateway says while services behind it are down, and what it serves."""

import asyncio
from pathlib import Path
from typing import Any

import aiohttp

from gateway.app import running
from services.runtime.api_key import new_key
from services.runtime.service_process import ServiceProcess
from services.subscription.app import running as running_registry
from services.subscription.bootstrap import bootstrap
from tests.gateway.world import World, gateway_settings, ready, registry_settings


async def test_a_registry_that_is_away_is_said_to_be_and_missed_no_longer_than_it_is_away(tmp_path: Path) -> None:
    """While it is down, answers are 503 with Retry-After and readyz names it; when it is back, everything works."""
    settings = registry_settings(tmp_path)
    keys = await asyncio.to_thread(bootstrap, settings)
    assert keys is not None
    async with running_registry(settings, ServiceProcess("subscription")) as first:
        address = first.listen
    async with running(gateway_settings(registry=address), ServiceProcess("gateway")) as gateway, aiohttp.ClientSession() as http:
        whose = {"authorization": f"Bearer {keys.consumer}"}
        answer = await ready(http, gateway.listen, status=503)
        assert answer.json["reason"] == "UNAVAILABLE"
        assert answer.json["detail"] == "Not available: subscription, ingest, delivery."
        assert answer.headers["retry-after"] == "1"
        assert (await ready(http, gateway.admin, status=503)).json["detail"] == answer.json["detail"]
        async with http.get(f"http://{gateway.listen}/healthz") as healthy:
            assert healthy.status == 200
        async with http.get(f"http://{gateway.listen}/v1/subscriptions", headers=whose) as refused:
            assert (refused.status, refused.headers["retry-after"]) == (503, "1")
            assert (await refused.json(content_type=None))["reason"] == "UNAVAILABLE"
        async with running_registry(registry_settings(tmp_path, listen=address), ServiceProcess("subscription")):
            back = await ready(http, gateway.listen)
            assert back.json == {"status": "degraded", "services": {"subscription": "ok", "ingest": "away", "delivery": "away"}}
            assert (await ready(http, gateway.admin)).json == {"status": "degraded", "detail": "ingest is away; delivery is away"}
            async with http.get(f"http://{gateway.listen}/v1/subscriptions", headers=whose) as answered:
                assert answered.status == 200
            async with http.get(f"http://{gateway.listen}/v1/events", headers=whose) as refused:
                assert refused.status == 503
        assert (await ready(http, gateway.listen, status=503)).json["detail"].startswith("Not available: subscription")


async def test_a_service_that_answers_and_does_not_do_its_work_is_told_of(world: World) -> None:
    """Every client hears that it is not ready, and operators hear why; requests are served meanwhile."""

    async def said(delivery: str) -> dict[str, Any]:
        answer: dict[str, Any] = {}
        async with asyncio.timeout(60):
            while not answer or answer["services"]["delivery"] != delivery:
                await asyncio.sleep(0.05)
                answer = (await ready(world.http, world.gateway.listen)).json
        return answer

    assert await said("ok") == {"status": "ok", "services": dict.fromkeys(("subscription", "ingest", "delivery"), "ok")}
    world.ledger.why_not_ready = "the ledger cannot be written"
    assert (await said("not ready"))["status"] == "degraded"
    told = (await ready(world.http, world.gateway.admin)).json
    assert told == {"status": "degraded", "detail": "delivery is not ready: the ledger cannot be written"}
    assert (await world.call("GET", "/v1/subscriptions", key=world.keys.consumer)).status == 200


async def test_a_registry_that_refuses_our_token_does_not_count_as_there(tmp_path: Path) -> None:
    async with running_registry(registry_settings(tmp_path), ServiceProcess("subscription")) as registry:
        settings = gateway_settings(registry=registry.listen, token="hts_another-token-than-the-registry-s")
        async with running(settings, ServiceProcess("gateway")) as gateway, aiohttp.ClientSession() as http:
            await ready(http, gateway.listen, status=503)
            async with http.get(f"http://{gateway.listen}/v1/whoami", headers={"authorization": f"Bearer {new_key()}"}) as answer:
                assert (answer.status, (await answer.json(content_type=None))["reason"]) == (500, "INTERNAL")


async def test_a_gateway_that_was_asked_to_stop_is_not_ready() -> None:
    process = ServiceProcess("gateway")
    async with running(gateway_settings(registry="127.0.0.1:1"), process) as gateway, aiohttp.ClientSession() as http:
        process.stop()
        assert (await ready(http, gateway.listen, status=503)).json["detail"] == "The gateway is stopping."
