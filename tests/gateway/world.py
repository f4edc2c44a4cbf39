"""World: a running gateway with the real registry behind it, keys of every role, and a client."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import grpc

from gateway.app import running as running_gateway
from gateway.listener import HttpLimits
from services.runtime.configuration.settings import GatewaySettings, SubscriptionSettings
from services.runtime.configuration.settings_reader import read_settings
from services.runtime.rpc.channel_and_server import open_channel, service_metadata
from services.runtime.service_process import Addresses, ServiceProcess
from services.subscription.app import running as running_registry
from services.subscription.bootstrap import bootstrap
from tests.gateway.fake_upstreams import Ledger, Log, new_log, serving_ledger, serving_log
from tests.support.dns import no_names

TOKEN = "hts_a-token-for-these-tests-only"
SINK = "https://consumer.example/hooks"
BODY_BYTES_MAX = 64 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer, read to its end."""

    status: int
    headers: Mapping[str, str]
    raw: bytes

    @property
    def json(self) -> Any:
        """The body, read as JSON."""
        return json.loads(self.raw)


@dataclass(frozen=True, slots=True)
class Keys:
    """Keys in clear text by role, and the ids of the consumers that own two of them."""

    admin: str
    emitter: str
    consumer: str
    consumer_id: str
    other: str
    other_id: str


@dataclass(slots=True)
class World:
    """Everything that runs."""

    gateway: Addresses
    http: aiohttp.ClientSession
    registry: grpc.aio.Channel
    keys: Keys
    log: Log
    ledger: Ledger

    async def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        raw: bytes | None = None,
    ) -> Answer:
        """Call the API with the consumer's key, or with another key ("": none)."""
        key = self.keys.consumer if key is None else key
        sent = {"authorization": f"Bearer {key}"} if key else {}
        data = raw if body is None else json.dumps(body).encode()
        if data is not None:
            sent["content-type"] = "application/json"
        sent |= headers or {}
        async with self.http.request(
            method, f"http://{self.gateway.listen}{path}", data=data, headers=sent, allow_redirects=False
        ) as answer:
            return Answer(answer.status, answer.headers, await answer.read())

    async def subscription(self, *, key: str | None = None, **members: object) -> dict[str, Any]:
        """Create a subscription and return the API's answer."""
        answer = await self.call("POST", "/v1/subscriptions", {"sink": SINK, **members}, key=key)
        assert answer.status == 201, answer.raw
        return dict(answer.json)


def registry_settings(folder: Path, *, listen: str = "127.0.0.1:0", handshake: str = "off") -> SubscriptionSettings:
    """Return the settings of a registry."""
    return read_settings(
        SubscriptionSettings,
        {
            "HOOKTIDE_DATA_DIR": str(folder),
            "HOOKTIDE_SERVICE_TOKEN": TOKEN,
            "HOOKTIDE_SECRET_KEY": "k1:" + "A" * 43 + "=",
            "HOOKTIDE_SINK_HANDSHAKE": handshake,
            "HOOKTIDE_ORIGIN": "hooks.example.com",
            "HOOKTIDE_SUBSCRIPTION_LISTEN": listen,
            "HOOKTIDE_SUBSCRIPTION_ADMIN_LISTEN": "127.0.0.1:0",
        },
    )


def gateway_settings(
    *, registry: str, log: str = "127.0.0.1:1", ledger: str = "127.0.0.1:1", token: str = TOKEN, **variables: str
) -> GatewaySettings:
    """Return the settings of a gateway; by default log and ledger are at port 1 of loopback, where no service listens."""
    return read_settings(
        GatewaySettings,
        {
            "HOOKTIDE_SERVICE_TOKEN": token,
            "HOOKTIDE_GATEWAY_LISTEN": "127.0.0.1:0",
            "HOOKTIDE_GATEWAY_ADMIN_LISTEN": "127.0.0.1:0",
            "HOOKTIDE_GATEWAY_BODY_BYTES_MAX": str(BODY_BYTES_MAX),
            "HOOKTIDE_SUBSCRIPTION_TARGET": registry,
            "HOOKTIDE_INGEST_TARGET": log,
            "HOOKTIDE_DELIVERY_TARGET": ledger,
            **variables,
        },
    )


@contextlib.asynccontextmanager
async def running_world(
    folder: Path, limits: HttpLimits | None = None, *, handshake: str = "off", gateway: Mapping[str, str] | None = None
) -> AsyncIterator[World]:
    """Run everything in this process, on free ports; `gateway` are variables of the gateway's."""
    settings = registry_settings(folder, handshake=handshake)
    first = await asyncio.to_thread(bootstrap, settings)
    assert first is not None
    log, ledger = new_log(), Ledger()
    async with (
        running_registry(settings, ServiceProcess("subscription"), resolve=no_names) as registry,
        serving_log(log, TOKEN) as log_address,
        serving_ledger(ledger, TOKEN) as ledger_address,
        running_gateway(
            gateway_settings(registry=registry.listen, log=log_address, ledger=ledger_address, **(gateway or {})),
            ServiceProcess("gateway"),
            limits or HttpLimits(),
        ) as addresses,
        aiohttp.ClientSession() as http,
        open_channel(registry.listen) as channel,
    ):
        ledger.report_to(channel, TOKEN)
        keys = Keys(first.admin, first.emitter, first.consumer, first.consumer_id, "", "")
        world = World(addresses, http, channel, keys, log, ledger)
        other = await world.call("POST", "/v1/consumers", {"name": "other"}, key=first.admin)
        key = await world.call("POST", "/v1/keys", {"role": "consumer", "consumer_id": other.json["id"]}, key=first.admin)
        world.keys = Keys(first.admin, first.emitter, first.consumer, first.consumer_id, key.json["key"], other.json["id"])
        yield world


METADATA = service_metadata(TOKEN)


async def ready(http: aiohttp.ClientSession, address: str, *, status: int = 200) -> Answer:
    """Wait until /readyz answers with a status, and return that answer."""
    async with asyncio.timeout(60):
        while True:
            async with http.get(f"http://{address}/readyz") as answer:
                if answer.status == status:
                    return Answer(answer.status, answer.headers, await answer.read())
