import asyncio
import contextlib
import itertools
import sqlite3
import time
from pathlib import Path

import grpc
import pytest
from google.rpc import code_pb2
from hooktide.error.v1 import error_pb2
from hooktide.event.v1 import event_pb2
from hooktide.ingest.v1 import ingest_pb2, ingest_pb2_grpc

from services.eventlog.record import partition_of
from services.ingest.server import UNARY_BYTES_MAX
from services.runtime.api_key_cache import FRESH_S
from services.runtime.errors import Reason, failure_from_rpc
from services.runtime.ids import is_id, new_id
from services.runtime.rpc.channel_and_server import open_channel
from tests.ingest.world import TIMEOUT_S, World, answer, message, positions, running_world
from tests.support.events import cloud_event, event_of_size
from tests.support.system.registry import refused

EVENT_BYTES_MAX = 256 * 1024
MIB = 1024 * 1024


async def test_a_published_event_stands_in_the_log(world: World) -> None:
    event = cloud_event("1", subject="eu-7")
    receipt = await world.publish(event)
    (record,) = await world.records()
    assert is_id(receipt.event_id, "evt")
    assert (receipt.partition, receipt.duplicate) == (partition_of("/shop\x00eu-7"), False)
    assert (record.event_id, record.partition, record.position) == (receipt.event_id, receipt.partition, receipt.position)
    assert (record.type, record.source, record.audience) == ("order.created", "/shop", "")
    assert type(event).FromString(record.event) == event


async def test_an_emitter_publishes_no_notice_over_any_method(world: World) -> None:
    """Only Hooktide's services publish types that begin with `hooktide.`; the answer names the field and the reason."""
    notice, event = cloud_event("1", type_="hooktide.subscription.failing"), cloud_event("2")
    failure = await refused(world.publish(notice))
    assert (failure.reason, [field.field for field in failure.fields]) == (Reason.INVALID_ARGUMENT, ["event.type"])
    assert "reserved for Hooktide's own notices" in failure.message
    results = [*await world.publish_batch([notice, event])]
    async with world.stream() as stream:
        await stream.write(message(notice, cloud_event("3")))
        results += (await answer(stream)).results
    assert [result.error.field for result in results] == ["type", "", "type", ""]
    assert [record.type for record in await world.records()] == ["order.created"] * 2


async def test_the_same_event_again_is_the_first_one(world: World) -> None:
    """It is the first event also if tracing has added another context, and over another call."""
    first = await world.publish(cloud_event("1", traceparent="00-1"))
    again = await world.publish(cloud_event("1", traceparent="00-2"))
    (result,) = await world.publish_batch([cloud_event("1")])
    first.duplicate = True
    assert again == result.receipt == first
    assert len(await world.records()) == 1


async def test_another_event_of_the_same_id_is_a_conflict(world: World) -> None:
    first = await world.publish(cloud_event("1"))
    failure = await refused(world.publish(cloud_event("1", data='{"id":2}')))
    assert failure.reason is Reason.EVENT_ID_CONFLICT
    assert first.event_id in failure.message
    assert [field.field for field in failure.fields] == ["event.id"]
    assert failure.retry_after_s is None


async def test_many_who_publish_one_event_at_once_get_one_answer(world: World) -> None:
    receipts = await asyncio.gather(*(world.publish(cloud_event("1", subject="s")) for _ in range(30)))
    assert len({(receipt.event_id, receipt.partition, receipt.position) for receipt in receipts}) == 1
    assert sorted(receipt.duplicate for receipt in receipts) == [False] + [True] * 29
    assert len(await world.records()) == 1


async def test_an_event_that_may_not_enter_is_refused_by_its_field(world: World) -> None:
    failure = await refused(world.publish(cloud_event(time="yesterday")))
    assert (failure.reason, failure.fields[0].field) == (Reason.INVALID_ARGUMENT, "event.attributes.time")
    failure = await refused(world.ingest.Publish(ingest_pb2.PublishRequest(), metadata=world.metadata(), timeout=TIMEOUT_S))
    assert (failure.reason, failure.fields[0].field) == (Reason.INVALID_ARGUMENT, "event.spec_version")
    assert await world.records() == []


async def test_each_event_of_a_batch_has_its_own_result_in_order(world: World) -> None:
    """A refused event does not hold up its neighbours, whatever the reason."""
    deep = '{"a":' * 600 + "1" + "}" * 600
    results = await world.publish_batch(
        [
            cloud_event("1"),
            cloud_event("2", time="yesterday"),
            cloud_event("1"),
            event_of_size(EVENT_BYTES_MAX + 1),
            cloud_event("1", data='{"id":2}'),
            cloud_event("3", data=deep),
            cloud_event("4", data='{"a":1,"\\u0061":2}'),
            cloud_event("5"),
        ]
    )
    first, last = results[0].receipt, results[-1].receipt
    assert first.event_id
    assert results[2].receipt == ingest_pb2.PublishReceipt(
        event_id=first.event_id, partition=first.partition, position=first.position, duplicate=True
    )
    assert last.position == first.position + 1
    assert [(result.error.reason, result.error.field) for result in results] == [
        (0, ""),
        (error_pb2.ERROR_REASON_INVALID_ARGUMENT, "attributes.time"),
        (0, ""),
        (error_pb2.ERROR_REASON_EVENT_TOO_LARGE, ""),
        (error_pb2.ERROR_REASON_EVENT_ID_CONFLICT, "id"),
        (error_pb2.ERROR_REASON_INVALID_ARGUMENT, "data"),
        (error_pb2.ERROR_REASON_INVALID_ARGUMENT, "data"),
        (0, ""),
    ]
    assert results[4].error.code == code_pb2.ALREADY_EXISTS
    assert results[1].error.code == code_pb2.INVALID_ARGUMENT
    assert first.event_id in results[4].error.message
    assert not any(result.error.HasField("retry_after") for result in results)
    assert [record.event_id for record in await world.records()] == [first.event_id, last.event_id]


async def test_a_batch_of_refused_events_is_answered(world: World) -> None:
    results = await world.publish_batch([cloud_event(time="x"), cloud_event(time="y")])
    assert [result.error.field for result in results] == ["attributes.time"] * 2


async def test_a_batch_has_1_to_1000_events(world: World) -> None:
    assert positions(await world.publish_batch(cloud_event() for _ in range(1000))) == list(range(1, 1001))
    for count in (0, 1001):
        failure = await refused(world.publish_batch([cloud_event() for _ in range(count)]))
        assert failure.reason is Reason.BATCH_TOO_LARGE
        assert "1 to 1000" in failure.message
    assert len(await world.records()) == 1000


async def test_an_event_may_have_exactly_its_limit(world: World) -> None:
    await world.publish(event_of_size(EVENT_BYTES_MAX))
    failure = await refused(world.publish(event_of_size(EVENT_BYTES_MAX + 1)))
    assert failure.reason is Reason.EVENT_TOO_LARGE
    assert str(EVENT_BYTES_MAX) in failure.message


async def test_the_events_of_a_batch_have_at_most_4_mib_together(world: World) -> None:
    fitting = [event_of_size(EVENT_BYTES_MAX) for _ in range(16)]
    assert positions(await world.publish_batch(fitting)) == list(range(1, 17))
    over = [event_of_size(EVENT_BYTES_MAX) for _ in range(15)] + [event_of_size(EVENT_BYTES_MAX - 2000), event_of_size(2001)]
    failure = await refused(world.publish_batch(over))
    assert failure.reason is Reason.BATCH_TOO_LARGE
    assert len(await world.records()) == 16


async def test_a_message_beyond_what_the_transport_takes_is_too_large(world: World) -> None:
    failure = await refused(world.publish_batch(event_of_size(EVENT_BYTES_MAX) for _ in range(33)))
    assert failure.reason is Reason.REQUEST_TOO_LARGE


async def test_a_type_may_require_an_audience(world: World) -> None:
    """Events without an audience are refused; their neighbours and other types are not."""
    await world.put_type("invoice.paid", audience_required=True)
    await world.put_type("order.created", audience_required=False)
    consumer = new_id("con")
    results = await world.publish_batch(
        [
            cloud_event(type_="invoice.paid"),
            cloud_event(type_="invoice.paid", audience=consumer),
            cloud_event(),
            cloud_event(type_="a type that the catalogue cannot have"),
        ]
    )
    assert [result.WhichOneof("result") for result in results] == ["error", "receipt", "receipt", "receipt"]
    assert results[0].error.reason == error_pb2.ERROR_REASON_AUDIENCE_REQUIRED
    assert "invoice.paid" in results[0].error.message
    failure = await refused(world.publish(cloud_event(type_="invoice.paid")))
    assert (failure.reason, failure.fields[0].field) == (Reason.AUDIENCE_REQUIRED, "event.attributes.audience")
    assert [record.audience for record in await world.records()] == [consumer, "", ""]


async def test_a_type_that_comes_to_require_an_audience_does_so_within_2_seconds(world: World) -> None:
    await world.publish(cloud_event(type_="invoice.paid"))
    await world.put_type("invoice.paid", audience_required=True)
    put = time.monotonic()
    async with asyncio.timeout(TIMEOUT_S):
        while True:
            began = time.monotonic()
            (result,) = await world.publish_batch([cloud_event(type_="invoice.paid")])
            if result.WhichOneof("result") == "error":
                break
            assert began - put < FRESH_S
    assert result.error.reason == error_pb2.ERROR_REASON_AUDIENCE_REQUIRED


async def test_a_full_log_refuses_each_event_and_says_when_to_come_again(tmp_path: Path) -> None:
    async with running_world(tmp_path, HOOKTIDE_INGEST_LOG_BYTES_MAX=str(MIB)) as world:
        while True:
            results = await world.publish_batch([event_of_size(100_000), cloud_event(time="x")])
            if results[0].WhichOneof("result") == "error":
                break
        assert results[0].error.reason == error_pb2.ERROR_REASON_LOG_FULL
        assert results[0].error.code == code_pb2.RESOURCE_EXHAUSTED
        assert results[0].error.retry_after.seconds == 30
        assert results[1].error.reason == error_pb2.ERROR_REASON_INVALID_ARGUMENT
        failure = await refused(world.publish(cloud_event()))
        assert (failure.reason, failure.retry_after_s) == (Reason.LOG_FULL, 30.0)


@pytest.mark.parametrize("timeout_s", [0.001, 0.01])
async def test_a_caller_that_gives_up_leaves_the_others_their_answers(world: World, timeout_s: float) -> None:
    """Its events may be in the log or not, and can be published again."""
    batch = [cloud_event(subject="s") for _ in range(200)]
    request = ingest_pb2.PublishBatchRequest(events=batch)
    calls = [world.ingest.PublishBatch(request, metadata=world.metadata(), timeout=timeout_s) for _ in range(10)]
    receipt = await world.publish(cloud_event())
    assert receipt.event_id
    for call in calls:
        assert await call.code() in {grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.OK}
    positions(await world.publish_batch(batch))
    assert len(await world.records()) == 201


async def test_more_than_is_taken_at_once_is_refused_for_now(world: World, tmp_path: Path) -> None:
    """Accepted events are appended as soon as the log can write, and refused ones may then be sent again."""
    batches = [[event_of_size(EVENT_BYTES_MAX) for _ in range(15)] for _ in range(20)]
    await world.publish(cloud_event())

    async def publish(channel: grpc.aio.Channel, batch: list[event_pb2.CloudEvent]) -> list[ingest_pb2.PublishResult]:
        request, metadata = ingest_pb2.PublishBatchRequest(events=batch), world.metadata()
        answer = await ingest_pb2_grpc.IngestServiceStub(channel).PublishBatch(request, metadata=metadata, timeout=TIMEOUT_S)
        return list(answer.results)

    # One connection allows no more calls at once than ingest takes.
    async with contextlib.AsyncExitStack() as stack:
        channels = [await stack.enter_async_context(open_channel(world.addresses.listen)) for _ in range(4)]
        with contextlib.closing(sqlite3.connect(tmp_path / "ingest.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            calls = [
                asyncio.ensure_future(publish(channel, batch)) for channel, batch in zip(itertools.cycle(channels), batches, strict=False)
            ]
            await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
            other.execute("ROLLBACK")
        answers = await asyncio.gather(*calls, return_exceptions=True)
    refusals = [failure_from_rpc(error) for error in answers if isinstance(error, grpc.aio.AioRpcError)]
    assert refusals
    assert {failure.reason for failure in refusals} == {Reason.OVERLOADED}
    assert all(failure.retry_after_s for failure in refusals)
    kept = [answer for answer in answers if isinstance(answer, list)]
    assert len(kept) >= UNARY_BYTES_MAX // (4 * MIB)
    for batch in batches:
        positions(await world.publish_batch(batch))
    assert len(await world.records()) == 15 * 20 + 1
