"""Start and stop of the gateway."""

import asyncio
import contextlib
import json
from pathlib import Path

import aiohttp
import pytest
import structlog

from gateway.app import running
from services.runtime.configuration.settings import GatewaySettings
from services.runtime.configuration.settings_reader import read_settings
from services.runtime.service_process import ServiceProcess, StartError, serve_until_stopped
from services.subscription.app import running as running_registry
from services.subscription.bootstrap import bootstrap
from tests.gateway.fake_upstreams import new_log, serving_log
from tests.gateway.raw_http import Dialled, head
from tests.gateway.world import TOKEN, gateway_settings, ready, registry_settings
from tests.support.dns import no_names
from tests.support.events import cloud_event
from tests.support.waiting import until


async def test_a_request_under_way_is_answered_while_the_gateway_stops(tmp_path: Path) -> None:
    settings = registry_settings(tmp_path)
    keys = await asyncio.to_thread(bootstrap, settings)
    assert keys is not None
    log = new_log()
    log.append(cloud_event("1", "a.b"))
    async with (
        running_registry(settings, ServiceProcess("subscription"), resolve=no_names) as registry,
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
