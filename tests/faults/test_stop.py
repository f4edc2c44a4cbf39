"""Row 51: a service that is asked to stop finishes its work in time, and loses and repeats nothing."""

import asyncio
import time

import pytest
from hooktide.delivery.v1 import delivery_pb2 as pb
from hooktide.ingest.v1 import ingest_pb2

from services.runtime.rpc.channel_and_server import service_metadata
from tests.faults.faulty_system import FaultySystem, said
from tests.support.events import cloud_event
from tests.support.system.processes import SERVICES
from tests.support.waiting import PATIENCE_S, until

DRAINED_WITHIN_S = 25.0


async def test_delivery_ends_its_attempts_and_records_them_before_it_stops(faulty: FaultySystem) -> None:
    """So the next process repeats none of the attempts."""
    endpoint = await faulty.subscribed("stop.delivery")
    endpoint.gate = asyncio.Event()
    events = [cloud_event(str(number), "stop.delivery", source="/stop.delivery") for number in range(100)]
    request = ingest_pb2.PublishBatchRequest(events=events)
    answer = await said(faulty.system.ingest.PublishBatch(request, metadata=service_metadata(faulty.system.first.emitter)))
    await until(lambda: endpoint.begun, PATIENCE_S, "the first attempts")
    stops = faulty.system.log("delivery").count("event=service.stopping")
    began = time.monotonic()
    stopping = asyncio.ensure_future(faulty.system.terminate("delivery"))
    await until(lambda: faulty.system.log("delivery").count("event=service.stopping") > stops, PATIENCE_S, "the stop begins")
    assert not stopping.done()
    endpoint.gate.set()
    assert await stopping == 0
    assert time.monotonic() - began < DRAINED_WITHIN_S
    assert len(endpoint.arrivals) == endpoint.begun
    await faulty.system.restart("delivery")
    await until(lambda: len(endpoint.accepted()) == 100, PATIENCE_S, "all of them")
    await faulty.in_state("stop.delivery", pb.DELIVERY_STATE_DELIVERED, 100)
    assert sorted(arrival.event_id for arrival in endpoint.arrivals) == sorted(result.receipt.event_id for result in answer.results)


async def test_delivery_does_not_wait_for_an_endpoint_that_never_answers(faulty: FaultySystem) -> None:
    """An attempt that is cut off has an unknown outcome, so the next process repeats it."""
    endpoint = await faulty.subscribed("stop.silent")
    endpoint.delay_s = 60.0
    receipt = await faulty.published("stop.silent", "1")
    await until(lambda: endpoint.begun, PATIENCE_S, "the attempt")
    began = time.monotonic()
    assert await faulty.system.terminate("delivery") == 0
    assert time.monotonic() - began < DRAINED_WITHIN_S
    endpoint.delay_s = 0.0
    await faulty.system.restart("delivery")
    await until(lambda: endpoint.accepted() == {receipt.event_id}, PATIENCE_S, "the next attempt")


@pytest.mark.parametrize("service", SERVICES)
async def test_a_service_that_stops_under_load_loses_nothing(faulty: FaultySystem, service: str) -> None:
    """The service exits with 0 before its deadline; emitters notice only a pause."""
    event_type = f"stop.load.{service}"
    failures = faulty.system.log(service).count("service.failed")
    endpoint = await faulty.subscribed(event_type)
    acknowledged: list[str] = []
    stop = asyncio.Event()

    async def emit() -> None:
        async with faulty.system.emitter(timeout=60.0) as emitter:
            while not stop.is_set():
                receipts = await asyncio.gather(*(emitter.emit(type=event_type, source="/stop", data=number) for number in range(10)))
                acknowledged.extend(receipt.event_id for receipt in receipts)

    async with asyncio.TaskGroup() as group:
        group.create_task(emit())
        await until(lambda: len(acknowledged) > 100, PATIENCE_S, "load")
        began = time.monotonic()
        code = await faulty.system.terminate(service)
        took_s = time.monotonic() - began
        await faulty.system.restart(service)
        before = len(acknowledged)
        await until(lambda: len(acknowledged) > before + 100, PATIENCE_S, "load after the stop")
        stop.set()
    assert (code, took_s < DRAINED_WITHIN_S) == (0, True)
    await until(lambda: endpoint.accepted() == set(acknowledged), PATIENCE_S, "all that was acknowledged")
    assert len(endpoint.arrivals) == len(acknowledged)
    assert faulty.system.log(service).count("service.failed") == failures
