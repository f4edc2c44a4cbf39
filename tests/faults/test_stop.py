"""Row 51: a service that is asked to stop finishes its work in time, and loses and repeats nothing."""

import asyncio
import time

import pytest
from hooktide.delivery.v1 import delivery_pb2 as pb
from hooktide.ingest.v1 import ingest_pb2

from services.runtime.rpc.channel_and_server import service_metadata
from tests.faults.faulty_system import Stage, said
from tests.support.events import cloud_event
from tests.support.system.processes import SERVICES
from tests.support.waiting import PATIENCE_S, until

DRAINED_WITHIN_S = 25.0


async def test_delivery_ends_its_attempts_and_records_them_before_it_stops(stage: Stage) -> None:
    """So the next process repeats none of the attempts."""
    endpoint = await stage.subscribed("stop.delivery")
    endpoint.gate = asyncio.Event()
    events = [cloud_event(str(number), "stop.delivery", source="/stop.delivery") for number in range(100)]
    request = ingest_pb2.PublishBatchRequest(events=events)
    answer = await said(stage.system.ingest.PublishBatch(request, metadata=service_metadata(stage.system.first.emitter)))
    await until(lambda: endpoint.begun, PATIENCE_S, "the first attempts")
    stops = stage.system.log("delivery").count("event=service.stopping")
    began = time.monotonic()
    stopping = asyncio.ensure_future(stage.system.terminate("delivery"))
    await until(lambda: stage.system.log("delivery").count("event=service.stopping") > stops, PATIENCE_S, "the stop begins")
    assert not stopping.done()
    endpoint.gate.set()
    assert await stopping == 0
    assert time.monotonic() - began < DRAINED_WITHIN_S
    assert len(endpoint.arrivals) == endpoint.begun
    await stage.system.restart("delivery")
    await until(lambda: len(endpoint.accepted()) == 100, PATIENCE_S, "all of them")
    await stage.in_state("stop.delivery", pb.DELIVERY_STATE_DELIVERED, 100)
    assert sorted(arrival.event_id for arrival in endpoint.arrivals) == sorted(result.receipt.event_id for result in answer.results)


async def test_delivery_does_not_wait_for_an_endpoint_that_never_answers(stage: Stage) -> None:
    """An attempt that is cut off has an unknown outcome, so the next process repeats it."""
    endpoint = await stage.subscribed("stop.silent")
    endpoint.delay_s = 60.0
    receipt = await stage.published("stop.silent", "1")
    await until(lambda: endpoint.begun, PATIENCE_S, "the attempt")
    began = time.monotonic()
    assert await stage.system.terminate("delivery") == 0
    assert time.monotonic() - began < DRAINED_WITHIN_S
    endpoint.delay_s = 0.0
    await stage.system.restart("delivery")
    await until(lambda: endpoint.accepted() == {receipt.event_id}, PATIENCE_S, "the next attempt")


@pytest.mark.parametrize("service", SERVICES)
async def test_a_service_that_stops_under_load_loses_nothing(stage: Stage, service: str) -> None:
    """The service exits with 0 before its deadline; emitters notice only a pause."""
    event_type = f"stop.load.{service}"
    failures = stage.system.log(service).count("service.failed")
    endpoint = await stage.subscribed(event_type)
    acknowledged: list[str] = []
    stop = asyncio.Event()

    async def emit() -> None:
        async with stage.system.emitter(timeout=60.0) as emitter:
            while not stop.is_set():
                receipts = await asyncio.gather(*(emitter.emit(type=event_type, source="/stop", data=number) for number in range(10)))
                acknowledged.extend(receipt.event_id for receipt in receipts)

    async with asyncio.TaskGroup() as group:
        group.create_task(emit())
        await until(lambda: len(acknowledged) > 100, PATIENCE_S, "load")
        began = time.monotonic()
        code = await stage.system.terminate(service)
        took_s = time.monotonic() - began
        await stage.system.restart(service)
        before = len(acknowledged)
        await until(lambda: len(acknowledged) > before + 100, PATIENCE_S, "load after the stop")
        stop.set()
    assert (code, took_s < DRAINED_WITHIN_S) == (0, True)
    await until(lambda: endpoint.accepted() == set(acknowledged), PATIENCE_S, "all that was acknowledged")
    assert len(endpoint.arrivals) == len(acknowledged)
    assert stage.system.log(service).count("service.failed") == failures
