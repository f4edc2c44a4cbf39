"""Faulty system: a system with breakable disks and clocks, a receiver and a consumer, for tests that break one thing at a time."""

import contextlib
import os
import signal
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import aiohttp
import grpc
import pytest
from hooktide.delivery.v1 import delivery_pb2
from hooktide.event.v1 import event_pb2
from hooktide.ingest.v1 import event_log_pb2, ingest_pb2

from services.runtime.errors import Failure, Reason, failure_from_rpc
from services.runtime.ids import new_id
from services.runtime.rpc.channel_and_server import service_metadata
from tests.faults.serve import DIRECTORY
from tests.faults.shim import SHADOWED, Control
from tests.support.consumers import Consumer, new_consumer
from tests.support.events import cloud_event
from tests.support.service_spawner import Spawner
from tests.support.system.processes import QUICK, SERVICES, System
from tests.support.waiting import PATIENCE_S, until, until_so
from tests.support.webhook_receivers.receiver import Endpoint, Receiver

_Answer = TypeVar("_Answer")


@dataclass(slots=True)
class FaultySystem:
    """Everything that a test of faults needs; made by `running_faulty_system`."""

    system: System
    told: Path
    receiver: Receiver
    consumer: Consumer
    _controls: dict[str, Control] = field(default_factory=dict)

    def control(self, service: str) -> Control:
        """Return the control of a service's disk and clock."""
        if service not in self._controls:
            self._controls[service] = Control(self.told, service)
        return self._controls[service]

    async def subscribed(self, name: str) -> Endpoint:
        """Return a new endpoint, subscribed to the event type of its name; first wait until the gateway has found restarted services."""
        endpoint = self.receiver.endpoint(name)
        await self.system.found_again()
        await self.consumer.subscribe(endpoint, [name])
        return endpoint

    # Publishing, without an emitter's retries

    async def publish(self, event_type: str, own_id: str, data: str = "{}", **attributes: str) -> ingest_pb2.PublishReceipt:
        """Publish one event with one call, from a source named after its type; raise the service's `Failure`."""
        return await self.publish_event(cloud_event(own_id, event_type, data, source=f"/{event_type}", **attributes))

    async def published(self, event_type: str, own_id: str, data: str = "{}", **attributes: str) -> ingest_pb2.PublishReceipt:
        """Publish one event; try again while a service is down."""
        receipt: list[ingest_pb2.PublishReceipt] = []

        async def taken() -> bool:
            try:
                receipt.append(await self.publish(event_type, own_id, data, **attributes))
            except Failure as failure:
                if failure.reason is not Reason.UNAVAILABLE:
                    raise
            return bool(receipt)

        await until_so(taken, PATIENCE_S, f"an event of {event_type} is taken")
        return receipt[0]

    async def publish_event(self, message: event_pb2.CloudEvent) -> ingest_pb2.PublishReceipt:
        """Publish an event as it is; raise `Failure`."""
        bearer = service_metadata(self.system.first.emitter)
        answer = await said(
            self.system.ingest.Publish(ingest_pb2.PublishRequest(event=message), metadata=bearer, timeout=10, wait_for_ready=True)
        )
        return answer.receipt

    # Reading

    async def logged(self, event_type: str) -> list[event_log_pb2.LogRecord]:
        """Return the events of a type in the log, newest first."""
        request = event_log_pb2.ListEventsRequest(consumer_id="*", type=event_type, page_size=200)
        answer = await said(self.system.event_log.ListEvents(request, metadata=self.system.metadata, wait_for_ready=True))
        return list(answer.records)

    async def released(self, position: int) -> None:
        """Wait until delivery has reported to the log that it needs nothing more up to a position."""
        uri = f"{(self.system.data_dir / 'ingest.db').as_uri()}?mode=ro"
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as connection:
            query = "SELECT count(*) = 256 FROM progress WHERE released >= ?"
            await until(lambda: connection.execute(query, (position,)).fetchone()[0], PATIENCE_S, "the report")

    async def delivered(self, event_type: str) -> list[delivery_pb2.Delivery]:
        """Return the deliveries of events of a type, newest first."""
        request = delivery_pb2.ListDeliveriesRequest(consumer_id="*", event_type=event_type, page_size=200)
        answer = await said(self.system.deliveries.ListDeliveries(request, metadata=self.system.metadata, wait_for_ready=True))
        return list(answer.deliveries)

    async def in_state(
        self, event_type: str, state: delivery_pb2.DeliveryState.ValueType, count: int, within_s: float = PATIENCE_S
    ) -> None:
        """Wait until exactly `count` deliveries of a type exist, all in one state."""

        async def so() -> bool:
            return [each.state for each in await self.delivered(event_type)] == [state] * count

        await until_so(so, within_s, f"{count} deliveries of {event_type} in the state {state}")

    async def metric(self, service: str, name: str) -> float:
        """Return the value of a metric without labels."""
        async with aiohttp.ClientSession() as session, session.get(f"http://{self.system.services[service].admin}/metrics") as answer:
            lines = (await answer.text()).splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))

    async def not_ready(self, service: str) -> str:
        """Return why a service is not ready; empty if it is ready."""
        async with aiohttp.ClientSession() as session, session.get(f"http://{self.system.services[service].admin}/readyz") as answer:
            return "" if answer.status == 200 else str((await answer.json())["detail"])

    async def degraded(self, service: str) -> str:
        """Return why a service does only a part of its work; empty if it does all or none of it."""
        async with aiohttp.ClientSession() as session, session.get(f"http://{self.system.services[service].admin}/readyz") as answer:
            body = await answer.json()
        return str(body["detail"]) if body["status"] == "degraded" else ""

    # Crashes

    async def mend(self) -> None:
        """Repair all disks and clocks, and start every service that is down."""
        for service in SERVICES:
            self.control(service).restore()
            if not self.system.running(service):
                self.system.kill(service)
                self.system.launch(service)
        for service in SERVICES:
            await self.system.ready(service)
        await self.published("mended", new_id("req"))

    async def kill_and_restart(self, *services: str) -> None:
        """Kill services and start them again."""
        for service in services:
            self.system.kill(service)
        for service in services:
            await self.system.restart(service)


def kill_at_once(system: System) -> None:
    """Kill all services at the same moment, as a loss of power does."""
    running = [service.process for service in system.services.values() if service.process is not None]
    for process in running:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGSTOP)
    for name in SERVICES:
        system.kill(name)


async def said(call: Awaitable[_Answer]) -> _Answer:
    """Return a call's answer; raise its error as a `Failure`."""
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        raise failure_from_rpc(error) from error


async def refused(call: Awaitable[object]) -> Failure:
    """Return the failure with which a call ends."""
    with pytest.raises(Failure) as caught:
        await call
    return caught.value


@contextlib.asynccontextmanager
async def running_faulty_system(
    directory: Path, spawner: Spawner, settings: Mapping[str, str] | None = None, *, spoilt: bool = True
) -> AsyncIterator[FaultySystem]:
    """Run a system of its own; if `spoilt`, with breakable disks and clocks, for which `spawner` must have the shim preloaded."""
    told, data = directory / "told", directory / "data"
    told.mkdir(parents=True)
    extra = {DIRECTORY: str(told), **({SHADOWED: str(data)} if spoilt else {})}
    system = System(data, {**QUICK, **(settings or {})}, module="tests.faults.serve", extra=extra, spawn=spawner.spawn)
    async with Receiver() as receiver:
        try:
            await system.start()
            yield FaultySystem(system, told, receiver, await new_consumer(system, "of the faulty system"))
        finally:
            await system.close()
