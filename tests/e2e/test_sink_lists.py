"""Sink lists: the lists of allowed and denied sinks change while the services run."""

import asyncio
from pathlib import Path

import hooktide
import pytest
from hooktide.delivery.v1 import delivery_pb2, delivery_pb2_grpc

from services.runtime.rpc.channel_and_server import open_channel, service_metadata
from tests.support import commands
from tests.support.system.in_process import WITHIN_S, System, reloads, running_system

TOKEN = "hts_a-token-for-this-test-only"
ALLOWED = "HOOKTIDE_SINK_ALLOW=http,127.0.0.0/8\n"
SERVICES = ("subscription", "delivery")


async def outcome(system: System, event_id: str) -> delivery_pb2.Attempt:
    """Return the first attempt of an event's delivery."""
    metadata = service_metadata(TOKEN)
    async with open_channel(system.addresses["delivery"].listen) as channel, asyncio.timeout(WITHIN_S):
        stub = delivery_pb2_grpc.DeliveryServiceStub(channel)
        while True:
            found = await stub.ListDeliveries(delivery_pb2.ListDeliveriesRequest(consumer_id="*", event_id=event_id), metadata=metadata)
            for each in found.deliveries:
                request = delivery_pb2.GetDeliveryRequest(consumer_id="*", id=each.id)
                attempts = (await stub.GetDelivery(request, metadata=metadata)).delivery.attempts
                if attempts:
                    return attempts[0]
            await asyncio.sleep(0.02)


async def test_a_range_that_is_denied_at_a_reload_gets_nothing_more_and_one_that_is_allowed_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A denied range also gets nothing over an open connection, and no new subscription may use it; an invalid list changes nothing."""
    file = tmp_path / "settings.env"
    file.write_text(ALLOWED)
    values: dict[str, str | Path] = {
        "SINK_ALLOW": "",
        "SETTINGS_FILE": file,
        "SERVICE_TOKEN": TOKEN,
        "DELIVERY_RETRY_DELAYS_SECONDS": "0.2,0.2,0.2,0.2,600",
    }
    async with running_system(monkeypatch, tmp_path, **values) as system:
        api = f"http://{system.addresses['gateway'].listen}"
        subscribe = ("subscribe", system.sink, "--api", api, "--key", system.keys.consumer)
        assert (await commands.hooktide(*subscribe, environ=commands.clean_environ())).code == 0
        async with hooktide.Emitter(system.addresses["ingest"].listen, key=system.keys.emitter) as emitter:
            receipt = await emitter.emit(type="order.created", source="/shop")
            assert (await system.webhook()).id == receipt.event_id
            file.write_text(f"{ALLOWED}HOOKTIDE_SINK_DENY=127.0.0.0/8\n")
            await system.reload(*SERVICES)
            blocked = await emitter.emit(type="order.created", source="/shop")
            assert (await outcome(system, blocked.event_id)).outcome == delivery_pb2.ATTEMPT_OUTCOME_BLOCKED
            refused = await commands.hooktide(*subscribe, environ=commands.clean_environ())
            assert (refused.code, "which the operator does not allow" in refused.err) == (1, True)
            assert system.webhooks.empty()
            file.write_text(f"{ALLOWED}HOOKTIDE_SINK_DENY=nonsense\n")
            before = reloads("refused")
            for name in SERVICES:
                system.processes[name].reload_asked.set()
            async with asyncio.timeout(WITHIN_S):
                while reloads("refused") < before + len(SERVICES):  # noqa: ASYNC110 - a metric tells of nothing by itself
                    await asyncio.sleep(0.01)
            again = await emitter.emit(type="order.created", source="/shop")
            assert (await outcome(system, again.event_id)).outcome == delivery_pb2.ATTEMPT_OUTCOME_BLOCKED
            file.write_text(ALLOWED)
            await system.reload(*SERVICES)
            receipt = await emitter.emit(type="order.created", source="/shop")
            received = set[str]()
            while receipt.event_id not in received:
                received.add((await system.webhook()).id)
