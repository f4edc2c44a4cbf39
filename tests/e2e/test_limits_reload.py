"""Reload of limits: limits change while the services run."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import hooktide
import pytest

from tests.support import commands
from tests.support.system.in_process import WITHIN_S, System, running_system
from tests.support.waiting import until
from tests.support.webhook_receivers.hostile_receivers import Connection, HostileServer, hostile

TOKEN = "hts_a-token-for-this-test-only"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The settings file."""
    file = tmp_path / "settings.env"
    file.write_text("HOOKTIDE_DELIVERY_HOST_CONNECTIONS_MAX=1\n")
    return file


@pytest.fixture
async def system(tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[System]:
    """All services, which read that file."""
    async with running_system(monkeypatch, tmp_path, SETTINGS_FILE=file, SERVICE_TOKEN=TOKEN) as running:
        yield running


def put(file: Path, text: str) -> None:
    """Write the settings file."""
    file.write_text(text)


async def test_the_sizes_of_events_and_of_request_bodies_change(system: System, file: Path) -> None:
    data, url = "x" * 2000, f"http://{system.addresses['gateway'].listen}/v1/subscriptions"
    headers = {"authorization": f"Bearer {system.keys.consumer}"}
    body = {"sink": f"{system.sink}/", "description": data}
    async with hooktide.Emitter(system.addresses["ingest"].listen, key=system.keys.emitter) as emitter, aiohttp.ClientSession() as http:
        await emitter.emit(type="order.created", source="/shop", data=data)
        assert (await http.post(url, json=body, headers=headers)).status != 413
        put(file, "HOOKTIDE_INGEST_EVENT_BYTES_MAX=1024\nHOOKTIDE_GATEWAY_BODY_BYTES_MAX=1024\n")
        await system.reload("ingest", "gateway")
        with pytest.raises(hooktide.InvalidEvent, match="the limit is 1024"):
            await emitter.emit(type="order.created", source="/shop", data=data)
        assert (await http.post(url, json=body, headers=headers)).status == 413
        put(file, "")
        await system.reload("ingest", "gateway")
        await emitter.emit(type="order.created", source="/shop", data=data)


async def test_the_number_of_attempts_at_once_changes(system: System, file: Path) -> None:
    """One attempt at a time is under way while the host's limit is 1; three are while it is 3."""
    answering = asyncio.Event()

    async def hold(connection: Connection) -> None:
        while await connection.request() is not None:
            await answering.wait()
            await connection.send(b"HTTP/1.1 204 No Content\r\n\r\n")

    async with hostile(hold) as endpoint, hooktide.Emitter(system.addresses["ingest"].listen, key=system.keys.emitter) as emitter:
        await subscribed(system, endpoint)
        await asyncio.gather(*(emitter.emit(type="order.created", source="/shop") for _ in range(3)))
        await until(lambda: len(endpoint.requests) == 1)
        put(file, "HOOKTIDE_DELIVERY_HOST_CONNECTIONS_MAX=3\n")
        await system.reload("delivery")
        # The pool looks at waiting requests when the host has answered, or when a new request comes.
        answering.set()
        await until(lambda: len(endpoint.requests) == 3)
        answering.clear()
        await asyncio.gather(*(emitter.emit(type="order.created", source="/shop") for _ in range(3)))
        await until(lambda: len(endpoint.requests) == 6)
        answering.set()


async def test_an_expiry_beyond_the_logs_retention_leaves_delivery_not_ready(system: System, file: Path) -> None:
    """Either service's reload cures it: a longer retention, a shorter expiry, or an operator who accepts the loss."""
    retention, expiry, beyond = (
        "HOOKTIDE_INGEST_RETENTION_HOURS=24\n",
        "HOOKTIDE_DELIVERY_EXPIRY_HOURS=48\n",
        "HOOKTIDE_DELIVERY_EXPIRY_BEYOND_LOG=true\n",
    )

    async with aiohttp.ClientSession() as http:

        async def told() -> str:
            async with http.get(f"http://{system.addresses['delivery'].admin}/readyz") as answer:
                return str((await answer.json()).get("detail", ""))

        async def becomes(text: str) -> None:
            async with asyncio.timeout(WITHIN_S):
                while text != await told():  # noqa: ASYNC110 - a probe tells of nothing by itself
                    await asyncio.sleep(0.02)

        too_long = (
            "HOOKTIDE_DELIVERY_EXPIRY_HOURS=48 is longer than the event log keeps events (24 hours); lower it, raise "
            "HOOKTIDE_INGEST_RETENTION_HOURS, or set HOOKTIDE_DELIVERY_EXPIRY_BEYOND_LOG=true"
        )
        await becomes("")
        put(file, retention + expiry)
        await system.reload("delivery")
        await becomes("")  # the log still keeps events for 168 hours
        await system.reload("ingest")
        await becomes(too_long)
        put(file, expiry)
        await system.reload("ingest")
        await becomes("")
        put(file, retention + expiry)
        await system.reload("ingest")
        await becomes(too_long)
        put(file, retention + expiry + beyond)
        await system.reload("delivery")
        await becomes("")
        put(file, retention)
        await system.reload("delivery")
        await becomes("")


async def subscribed(system: System, endpoint: HostileServer) -> None:
    subscribe = ("subscribe", endpoint.url, "--api", f"http://{system.addresses['gateway'].listen}", "--key", system.keys.consumer)
    ended = await asyncio.wait_for(commands.hooktide(*subscribe, environ=commands.clean_environ()), WITHIN_S)
    assert ended.code == 0, ended
