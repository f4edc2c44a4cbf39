"""Start and stop, and services behind the gateway that are down."""

import asyncio
import contextlib
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import structlog

from gateway.app import running
from services.runtime.api_key import new_key
from services.runtime.configuration.settings import GatewaySettings
from services.runtime.configuration.settings_reader import read_settings
from services.runtime.service_process import ServiceProcess, StartError, serve_until_stopped
from services.subscription.app import running as running_registry
from services.subscription.bootstrap import bootstrap
from tests.gateway.fake_upstreams import new_log, serving_log
from tests.gateway.raw_http import Dialled, head
from tests.gateway.world import TOKEN, World, gateway_settings, ready, registry_settings
from tests.support.events import cloud_event
from tests.support.waiting import until


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
        assert answer.json["detail"] == "Away: subscription, ingest, delivery."
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
        assert (await ready(http, gateway.listen, status=503)).json["detail"].startswith("Away: subscription")


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


async def test_a_request_under_way_is_answered_while_the_gateway_stops(tmp_path: Path) -> None:
    settings = registry_settings(tmp_path)
    keys = await asyncio.to_thread(bootstrap, settings)
    assert keys is not None
    log = new_log()
    log.append(cloud_event("1", "a.b"))
    async with (
        running_registry(settings, ServiceProcess("subscription")) as registry,
        serving_log(log, TOKEN) as log_address,
        aiohttp.ClientSession() as http,
        contextlib.AsyncExitStack() as stack,
    ):
        gateway = await stack.enter_async_context(
            running(gateway_settings(registry=registry.listen, log=log_address), ServiceProcess("gateway"))
        )
        await ready(http, gateway.listen)
        log.gate.clear()

        async def listed() -> int:
            async with http.get(f"http://{gateway.listen}/v1/events", headers={"authorization": f"Bearer {keys.consumer}"}) as answer:
                return len((await answer.json())["items"])

        async with asyncio.TaskGroup() as group:
            under_way = group.create_task(listed())
            await log.waiting.wait()
            stopping = group.create_task(stack.aclose())
            async with asyncio.timeout(60):
                while True:
                    try:
                        _, writer = await asyncio.open_connection(*gateway.listen.split(":"))
                    except ConnectionRefusedError:
                        break
                    writer.close()
            assert not stopping.done()
            log.gate.set()
        assert under_way.result() == 1


async def test_serve_says_where_it_is_reached_and_ends_when_asked(tmp_path: Path) -> None:
    process = ServiceProcess("gateway", ready_file=tmp_path / "ready.json")
    async with asyncio.TaskGroup() as group:
        serving = group.create_task(serve_until_stopped(running(gateway_settings(registry="127.0.0.1:1"), process), process))
        await until((tmp_path / "ready.json").exists)
        assert not serving.done()
        process.stop()
    assert set(json.loads((tmp_path / "ready.json").read_text())) == {"listen", "admin"}


async def test_a_gateway_that_was_asked_to_stop_is_not_ready() -> None:
    process = ServiceProcess("gateway")
    async with running(gateway_settings(registry="127.0.0.1:1"), process) as gateway, aiohttp.ClientSession() as http:
        process.stop()
        assert (await ready(http, gateway.listen, status=503)).json["detail"] == "The gateway is stopping."


async def test_a_gateway_can_listen_on_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "gateway.sock"
    settings = gateway_settings(registry="127.0.0.1:1").model_copy(update={"gateway_listen": f"unix:{path}"})
    async with (
        running(settings, ServiceProcess("gateway")) as gateway,
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as http,
    ):
        assert gateway.listen == f"unix:{path}"
        async with http.get("http://gateway/healthz") as answer:
            assert answer.status == 200


async def test_an_address_in_use_is_one_clear_line() -> None:
    async with running(gateway_settings(registry="127.0.0.1:1"), ServiceProcess("gateway")) as gateway:
        taken = gateway_settings(registry="127.0.0.1:1").model_copy(update={"gateway_listen": gateway.listen})
        with pytest.raises(StartError, match=f"cannot listen on {gateway.listen}"):
            async with running(taken, ServiceProcess("gateway")):
                pass


async def test_a_missing_token_is_one_clear_line() -> None:
    settings = gateway_settings(registry="127.0.0.1:1").model_copy(update={"service_token": ""})
    with pytest.raises(StartError, match="HOOKTIDE_SERVICE_TOKEN"):
        async with running(settings, ServiceProcess("gateway")):
            pass


async def test_sighup_changes_the_limits_of_connections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "settings"
    file.write_text("")
    addresses = {f"HOOKTIDE_GATEWAY_{name}": "127.0.0.1:0" for name in ("LISTEN", "ADMIN_LISTEN")}
    targets = {f"HOOKTIDE_{name}_TARGET": "127.0.0.1:1" for name in ("SUBSCRIPTION", "INGEST", "DELIVERY")}
    for name, value in {"HOOKTIDE_SETTINGS_FILE": str(file), "HOOKTIDE_SERVICE_TOKEN": TOKEN, **addresses, **targets}.items():
        monkeypatch.setenv(name, value)
    process = ServiceProcess("gateway")
    async with running(read_settings(GatewaySettings), process) as gateway:
        async with Dialled(gateway.listen) as first, Dialled(gateway.listen) as second:
            for wire in (first, second):
                await wire.send(head("GET", "/healthz"))
                assert (await wire.answer()).status == 200
        file.write_text("HOOKTIDE_GATEWAY_ADDRESS_CONNECTIONS_MAX=1")
        with structlog.testing.capture_logs() as lines:
            process.reload_asked.set()
            await until(lambda: any(line["event"] == "settings.reloaded" for line in lines))
        async with Dialled(gateway.listen) as first, Dialled(gateway.listen) as second:
            assert await first.ended()
            await second.send(head("GET", "/healthz"))
            assert (await second.answer()).status == 200
