"""Rows 21 to 26: events that are repeated, contradictory, broken, too large, not JSON, or endless."""

import asyncio
import contextlib
import shutil
import sqlite3
from pathlib import Path

import psutil
import pytest
from hooktide.delivery.v1 import delivery_pb2 as pb
from hooktide.ingest.v1 import ingest_pb2

from services.delivery.worker.poison import STARTS_MAX
from services.runtime.errors import Reason
from services.runtime.rpc.channel_and_server import service_metadata
from tests.faults.faulty_system import FaultySystem, refused, running_faulty_system, said
from tests.faults.poison import poison
from tests.support.events import cloud_event, event_of_size
from tests.support.service_spawner import Spawner
from tests.support.waiting import PATIENCE_S, until, until_so

LIMIT_BYTES = 256 * 1024
DEPTH = 10_000
NO_JSON = {
    "nesting": "[" * DEPTH + "]" * DEPTH,
    "objects": '{"a":' * DEPTH + "1" + "}" * DEPTH,
    "duplicate key": '{"a": 1, "a": 2}',
    "duplicate key, written otherwise": '{"a": 1, "\\u0061": 2}',
    "NaN": '{"a": NaN}',
    "Infinity": "[-Infinity]",
    "lone surrogate": '"\\ud800"',
    "lone surrogates in the wrong order": '"\\udc00\\ud800"',
    "comment": "{} // done",
    "cut off": '{"a": [1, 2',
    "nothing": "",
}


async def test_the_same_event_again_is_the_first_one(faulty: FaultySystem) -> None:
    """An event that is repeated, with its attributes in any order, is delivered once."""
    endpoint = await faulty.subscribed("again.same")
    first = await faulty.publish("again.same", "1", '{"a": 1}', subject="x", partitionkey="k")
    for _ in range(3):
        again = await faulty.publish("again.same", "1", '{"a": 1}', partitionkey="k", subject="x")
        assert again.duplicate
        assert (again.event_id, again.partition, again.position) == (first.event_id, first.partition, first.position)
    last = await faulty.publish("again.same", "2")
    await until(lambda: endpoint.accepted() == {first.event_id, last.event_id}, PATIENCE_S, "both")
    assert len(endpoint.arrivals) == 2


async def test_another_event_of_the_same_id_is_a_conflict_and_the_first_stays(faulty: FaultySystem) -> None:
    endpoint = await faulty.subscribed("again.other")
    first = await faulty.publish("again.other", "1", '{"a": 1}')
    failure = await refused(faulty.publish("again.other", "1", '{"a": 2}'))
    assert failure.reason is Reason.EVENT_ID_CONFLICT
    assert first.event_id in failure.message
    await until(endpoint.accepted, PATIENCE_S, "the first")
    assert b'"data":{"a": 1}' in endpoint.arrivals[0].body
    assert len(await faulty.logged("again.other")) == 1


async def test_an_event_that_cannot_be_encoded_is_set_aside_with_its_reason_and_its_neighbours_flow(faulty: FaultySystem) -> None:
    """Ingest accepts no such event, so the test damages one within the log, as a fault of the machine would."""
    endpoint = await faulty.subscribed("broken.payload")
    faulty.system.kill("delivery")
    receipts = [await faulty.publish("broken.payload", str(number), partitionkey="one") for number in range(3)]
    assert await faulty.system.terminate("ingest") == 0
    with contextlib.closing(sqlite3.connect(faulty.system.data_dir / "ingest.db", isolation_level=None)) as connection:
        connection.execute("UPDATE events SET event = x'ffffff' WHERE position = ?", (receipts[1].position,))
    await faulty.system.restart("ingest")
    await faulty.system.restart("delivery")
    await until(lambda: endpoint.accepted() == {receipts[0].event_id, receipts[2].event_id}, PATIENCE_S, "its neighbours")

    async def ended() -> bool:
        return pb.DELIVERY_STATE_PENDING not in [each.state for each in await faulty.delivered("broken.payload")]

    await until_so(ended, PATIENCE_S, "the end of all three")
    (aside,) = [each for each in await faulty.delivered("broken.payload") if each.event_id == receipts[1].event_id]
    assert aside.state == pb.DELIVERY_STATE_EXHAUSTED
    request = pb.GetDeliveryRequest(consumer_id="*", id=aside.id)
    shown = await faulty.system.deliveries.GetDelivery(request, metadata=faulty.system.metadata)
    assert "could not be encoded" in shown.delivery.attempts[0].error
    assert "event=delivery.encoding_failed" in faulty.system.log("delivery")
    assert len(endpoint.arrivals) == 2


async def test_an_event_whose_routing_kills_the_service_is_set_aside_and_those_around_it_arrive(tmp_path: Path, spawner: Spawner) -> None:
    """It ends as many starts as may end at one place. Log and readiness name it, and a metric counts it."""
    async with running_faulty_system(tmp_path, spawner, spoilt=False) as faulty:
        before, after = await faulty.subscribed("before"), await faulty.subscribed("after")
        await faulty.subscribed("killer")
        faulty.system.kill("delivery")
        poison(faulty.told, "killer")
        first = await faulty.published("before", "1")
        killer = await faulty.published("killer", "1")
        last = await faulty.published("after", "1")
        deaths = 0
        while not after.accepted():
            faulty.system.launch("delivery")
            await until(lambda: after.accepted() or not faulty.system.running("delivery"), PATIENCE_S, "it dies of the event, or goes on")
            if not after.accepted():
                deaths += 1
                assert deaths <= STARTS_MAX
                faulty.system.kill("delivery")
        assert after.accepted() == {last.event_id}
        assert before.accepted() == {first.event_id}
        assert await faulty.delivered("killer") == []
        assert f"event=event.set_aside event_id={killer.event_id}" in faulty.system.log("delivery")
        assert "events set aside: 1" in await faulty.degraded("delivery")
        assert await faulty.metric("delivery", "hooktide_set_aside_events") == 1


async def test_one_byte_over_the_limit_is_too_large_and_its_neighbours_flow(faulty: FaultySystem) -> None:
    endpoint = await faulty.subscribed("size.limit")

    fits = await faulty.publish_event(event_of_size(LIMIT_BYTES, "fits", "size.limit"))
    failure = await refused(faulty.publish_event(event_of_size(LIMIT_BYTES + 1, "exceeds", "size.limit")))
    assert failure.reason is Reason.EVENT_TOO_LARGE
    after = await faulty.publish("size.limit", "after")
    await until(lambda: endpoint.accepted() == {fits.event_id, after.event_id}, PATIENCE_S, "the others")
    assert len(await faulty.logged("size.limit")) == 2


@pytest.mark.parametrize("kind", NO_JSON)
async def test_what_is_no_json_is_refused_by_its_field(faulty: FaultySystem, kind: str) -> None:
    failure = await refused(faulty.publish("no.json", kind, NO_JSON[kind]))
    assert failure.reason is Reason.INVALID_ARGUMENT
    assert [field.field for field in failure.fields] == ["event.data"]
    assert await faulty.logged("no.json") == []


async def test_a_stream_that_never_ends_and_never_listens_holds_up_nobody_and_takes_no_memory(spawner: Spawner, tmp_path: Path) -> None:
    """The client writes as fast as backpressure lets it; the disk sets that speed, and no buffer grows on the way."""
    async with running_faulty_system(tmp_path / "faulty", spawner, spoilt=False) as faulty:
        endpoint = await faulty.subscribed("endless.other")
        process = faulty.system.services["ingest"].process
        assert process is not None
        ingest = psutil.Process(process.pid)
        call = faulty.system.ingest.PublishStream(None, metadata=service_metadata(faulty.system.first.emitter))
        written = 0

        async def write() -> None:
            nonlocal written
            padding = '"' + "x" * 100_000 + '"'
            while True:
                events = [cloud_event(f"{written}-{each}", "endless.stream", padding) for each in range(10)]
                await call.write(ingest_pb2.PublishStreamRequest(events=events))
                written += 1

        writing = asyncio.ensure_future(write())
        try:
            await until(lambda: written > 50, PATIENCE_S, "the stream's beginning")
            before = ingest.memory_info().rss
            for number in range(10):
                async with asyncio.timeout(PATIENCE_S):
                    await faulty.publish("endless.other", str(number))
            await until(lambda: written > 200, PATIENCE_S, "150 MB more")
            assert ingest.memory_info().rss - before < 80 << 20
            await until(lambda: len(endpoint.accepted()) == 10, PATIENCE_S, "the events of somebody else")
        finally:
            writing.cancel()
            call.cancel()
    shutil.rmtree(tmp_path / "faulty")


async def test_events_of_one_message_have_their_own_results(faulty: FaultySystem) -> None:
    """An invalid event of any kind keeps no other event of its message out."""
    endpoint = await faulty.subscribed("mixed.message")
    good = [cloud_event(str(number), "mixed.message") for number in range(3)]
    bad = [cloud_event(kind, "mixed.message", text) for kind, text in NO_JSON.items()]
    bearer = service_metadata(faulty.system.first.emitter)
    call = faulty.system.ingest.PublishBatch(ingest_pb2.PublishBatchRequest(events=[*good[:1], *bad, *good[1:]]), metadata=bearer)
    results = (await said(call)).results
    kept = [result.receipt.event_id for result in results if result.HasField("receipt")]
    assert [result.HasField("receipt") for result in results] == [True, *[False] * len(bad), True, True]
    await until(lambda: endpoint.accepted() == set(kept), PATIENCE_S, "the good ones")
