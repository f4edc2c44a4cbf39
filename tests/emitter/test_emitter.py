import asyncio
import itertools
from collections.abc import Callable
from typing import Any

import grpc
import hooktide
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2
from hooktide import _stream
from hooktide.error.v1 import error_pb2
from hooktide.error.v1.error_pb2 import EventError
from hooktide.event.v1.event_pb2 import CloudEvent

from tests.emitter.service import IngestOfTests, Running, ServiceEnd
from tests.support.events import cloud_event


def emitter_to(running: Running, **limits: Any) -> hooktide.Emitter:
    return hooktide.Emitter(running.target, key="hkt_test", **{"timeout": 20.0, **limits})


async def emit_many(emitter: hooktide.Emitter, count: int) -> list[hooktide.Receipt]:
    return await asyncio.gather(*(emitter.emit(type="order.created", source="/shop", id=str(number)) for number in range(count)))


def refusing(reason: error_pb2.ErrorReason.ValueType, code: int, *, field: str = "", retry_after_s: float | None = None) -> EventError:
    error = EventError(reason=reason, code=code, message="because", field=field)
    if retry_after_s is not None:
        error.retry_after.CopyFrom(Duration(nanos=int(retry_after_s * 1e9)))
    return error


async def test_an_emit_returns_the_receipt_of_the_service(running: Running, service: IngestOfTests) -> None:
    async with emitter_to(running) as emitter:
        first = await emitter.emit(type="order.created", source="/shop", id="a", data={"id": 7})
        again = await emitter.emit(type="order.created", source="/shop", id="a", data={"id": 7})
    assert first == hooktide.Receipt(event_id="evt_a", partition=7, position=0, duplicate=False)
    assert again == hooktide.Receipt(event_id="evt_a", partition=7, position=0, duplicate=True)
    assert ("authorization", "Bearer hkt_test") in service.metadata
    assert service.streams == 1


async def test_a_ready_event_is_published_as_it_was_when_emitted(running: Running, service: IngestOfTests) -> None:
    event = cloud_event("x")
    sent = CloudEvent.FromString(event.SerializeToString())
    async with emitter_to(running) as emitter:
        emit = asyncio.create_task(emitter.emit_event(event))
        await asyncio.sleep(0)
        event.type = "changed"
        await emit
    assert service.stored["/shop", "x"] == sent


async def test_concurrent_emits_travel_together_and_in_order(running: Running, service: IngestOfTests) -> None:
    async with emitter_to(running) as emitter:
        receipts = await emit_many(emitter, 2_000)
    assert service.ids == [str(number) for number in range(2_000)]
    assert [receipt.position for receipt in receipts] == list(range(2_000))
    assert service.streams == 1
    assert max(service.messages) <= 500
    assert len(service.messages) <= 10


async def test_messages_stay_within_one_mebibyte_unless_one_event_is_larger(running: Running, service: IngestOfTests) -> None:
    async with emitter_to(running) as emitter:
        await asyncio.gather(*(emitter.emit(type="t", source="/s", data=b"x" * 300_000) for _ in range(10)))
        assert max(service.message_bytes) <= 1024 * 1024
        await emitter.emit(type="t", source="/s", data=b"x" * 2_000_000)
    assert service.messages[-1] == 1


@pytest.mark.parametrize("stored", [False, True], ids=["not stored", "stored"])
async def test_what_a_broken_stream_left_unanswered_is_sent_again_in_order(
    running: Running, service: IngestOfTests, *, stored: bool
) -> None:
    """Each of the first streams dies at its third message, before or after storing it; every event is acknowledged, in order, once."""
    service.behaviour.store_before_end = stored
    service.behaviour.end_before_answer = lambda number, _event: ServiceEnd() if number == 2 and service.streams < 4 else None
    async with emitter_to(running) as emitter:
        receipts = await emit_many(emitter, 5_000)
    assert service.streams == 4
    assert service.ids == [str(number) for number in range(5_000)]
    assert [receipt.event_id for receipt in receipts] == [f"evt_{number}" for number in range(5_000)]
    assert any(receipt.duplicate for receipt in receipts) is stored


@pytest.mark.parametrize("code", [grpc.StatusCode.CANCELLED, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN])
async def test_a_stream_is_made_anew_whatever_fault_ended_it(running: Running, service: IngestOfTests, code: grpc.StatusCode) -> None:
    service.behaviour.end_before_answer = lambda _number, _event: ServiceEnd(code) if service.streams == 1 else None
    async with emitter_to(running) as emitter:
        await emit_many(emitter, 10)
    assert service.streams == 2


async def test_an_emitter_outlives_a_restart_of_the_service(running: Running, service: IngestOfTests) -> None:
    """Emits under way and emits begun during the restart all end with a receipt."""
    async with emitter_to(running) as emitter:
        await emit_many(emitter, 1)
        service.behaviour.answering.clear()
        under_way = asyncio.create_task(emit_many(emitter, 100))
        await service.until(lambda: len(service.seen) == 101)
        await running.stop()
        begun_while_away = asyncio.create_task(emitter.emit(type="t", source="/s", id="late"))
        service.behaviour.answering.set()
        await running.start()
        assert len(await under_way) == 100
        assert (await begun_while_away).event_id == "evt_late"
    assert service.ids == [*(str(number) for number in range(100)), "late"]


async def test_a_stream_that_ended_while_idle_is_not_noticed_by_the_next_emit(running: Running, service: IngestOfTests) -> None:
    async with emitter_to(running) as emitter:
        await emit_many(emitter, 1)
        await running.stop()
        await running.start()
        receipt = await emitter.emit(type="t", source="/s", id="next")
    assert receipt.event_id == "evt_next"
    assert service.streams == 2


async def test_a_refused_event_does_not_touch_its_neighbours(running: Running, service: IngestOfTests) -> None:
    refusal = refusing(error_pb2.ERROR_REASON_INVALID_ARGUMENT, code_pb2.INVALID_ARGUMENT, field="source")
    service.behaviour.refuse = lambda event: refusal if event.id == "bad" else None
    async with emitter_to(running) as emitter:
        good, bad, after = await asyncio.gather(
            *(emitter.emit(type="t", source="/s", id=event_id) for event_id in ("good", "bad", "after")), return_exceptions=True
        )
    assert isinstance(good, hooktide.Receipt)
    assert isinstance(after, hooktide.Receipt)
    assert isinstance(bad, hooktide.InvalidEvent)
    assert (bad.reason, bad.field, bad.retryable, bad.outcome_unknown, str(bad)) == ("INVALID_ARGUMENT", "source", False, False, "because")


@pytest.mark.parametrize(
    ("reason", "code", "kind"),
    [
        (error_pb2.ERROR_REASON_EVENT_ID_CONFLICT, code_pb2.ALREADY_EXISTS, hooktide.EventConflict),
        (error_pb2.ERROR_REASON_AUDIENCE_REQUIRED, code_pb2.INVALID_ARGUMENT, hooktide.InvalidEvent),
        (error_pb2.ERROR_REASON_EVENT_TOO_LARGE, code_pb2.INVALID_ARGUMENT, hooktide.InvalidEvent),
        (error_pb2.ERROR_REASON_ROLE_FORBIDDEN, code_pb2.PERMISSION_DENIED, hooktide.NotAuthorized),
        (error_pb2.ERROR_REASON_LOG_FULL, code_pb2.RESOURCE_EXHAUSTED, hooktide.LogFull),
        (error_pb2.ERROR_REASON_STATE_CONFLICT, code_pb2.FAILED_PRECONDITION, hooktide.EmitError),
    ],
)
async def test_a_refusal_raises_the_error_of_its_reason(
    running: Running, service: IngestOfTests, reason: error_pb2.ErrorReason.ValueType, code: int, kind: type[hooktide.EmitError]
) -> None:
    service.behaviour.refuse = lambda _event: refusing(reason, code)
    async with emitter_to(running) as emitter:
        with pytest.raises(hooktide.EmitError) as raised:
            await emitter.emit(type="t", source="/s")
    assert type(raised.value) is kind
    assert f"ERROR_REASON_{raised.value.reason}" == error_pb2.ErrorReason.Name(reason)


async def test_an_event_put_off_by_the_service_is_sent_again_after_the_wait(running: Running, service: IngestOfTests) -> None:
    asked: list[float] = []

    def refuse(event: CloudEvent) -> EventError | None:
        if event.id != "full":
            return None
        asked.append(asyncio.get_running_loop().time())
        return refusing(error_pb2.ERROR_REASON_LOG_FULL, code_pb2.RESOURCE_EXHAUSTED, retry_after_s=0.1) if len(asked) < 3 else None

    service.behaviour.refuse = refuse
    async with emitter_to(running) as emitter:
        await asyncio.gather(*(emitter.emit(type="t", source="/s", id=event_id) for event_id in ("full", "other")))
    assert service.ids == ["other", "full"]
    assert all(later - earlier >= 0.09 for earlier, later in itertools.pairwise(asked))


async def test_a_log_that_stays_full_is_told_at_the_timeout(running: Running, service: IngestOfTests) -> None:
    service.behaviour.refuse = lambda _event: refusing(error_pb2.ERROR_REASON_LOG_FULL, code_pb2.RESOURCE_EXHAUSTED, retry_after_s=0.9)
    async with emitter_to(running, timeout=0.5) as emitter:
        with pytest.raises(hooktide.LogFull) as raised:
            await emitter.emit(type="t", source="/s")
    assert (raised.value.reason, raised.value.retryable, raised.value.outcome_unknown) == ("LOG_FULL", True, False)


@pytest.mark.parametrize(
    ("end", "kind"),
    [
        (ServiceEnd(grpc.StatusCode.UNAUTHENTICATED, "KEY_INVALID"), hooktide.NotAuthorized),
        (ServiceEnd(grpc.StatusCode.PERMISSION_DENIED), hooktide.NotAuthorized),
        (ServiceEnd(grpc.StatusCode.UNIMPLEMENTED), hooktide.EmitError),
    ],
)
async def test_a_refused_key_fails_every_emit_at_once_and_is_tried_anew_by_the_next(
    running: Running, service: IngestOfTests, end: ServiceEnd, kind: type[hooktide.EmitError]
) -> None:
    service.behaviour.end_before_answer = lambda _number, _event: end
    async with emitter_to(running) as emitter:
        emits = (emitter.emit(type="t", source="/s") for _ in range(1_000))
        ends = await asyncio.gather(*emits, return_exceptions=True)
        assert {type(error) for error in ends} == {kind}
        service.behaviour.end_before_answer = lambda _number, _event: None
        await emitter.emit(type="t", source="/s")


async def test_no_event_is_sent_with_a_key_that_is_refused(running: Running, service: IngestOfTests) -> None:
    service.behaviour.refuse_stream = ServiceEnd(grpc.StatusCode.UNAUTHENTICATED, "KEY_INVALID")
    async with emitter_to(running) as emitter:
        for _ in range(20):
            with pytest.raises(hooktide.NotAuthorized) as raised:
                await emitter.emit(type="t", source="/s")
            assert not raised.value.outcome_unknown
        assert service.streams == 20
        assert service.messages == []


async def test_a_service_that_does_not_say_that_it_accepts_the_key_gets_the_events(running: Running, service: IngestOfTests) -> None:
    service.behaviour.says_accepted = False
    async with emitter_to(running) as emitter:
        await emit_many(emitter, 3)
    assert service.streams == 1


async def test_the_wait_for_the_acceptance_leaves_time_to_send_the_events(
    running: Running, service: IngestOfTests, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_stream, "ACCEPTANCE_WAIT_S", 60.0)
    service.behaviour.says_accepted = False
    async with emitter_to(running, timeout=3.0) as emitter:
        await emit_many(emitter, 3)


async def test_events_refused_for_their_key_are_known_not_to_be_stored(running: Running, service: IngestOfTests) -> None:
    """No other message was under way: otherwise a later message might be the refused one."""
    service.behaviour.end_before_answer = lambda _number, _event: ServiceEnd(grpc.StatusCode.UNAUTHENTICATED, "KEY_INVALID")
    async with emitter_to(running) as emitter:
        with pytest.raises(hooktide.NotAuthorized) as raised:
            await emitter.emit(type="t", source="/s")
    assert not raised.value.outcome_unknown
    assert "may or may not" not in str(raised.value)


async def test_a_refused_message_fails_its_own_events_only(running: Running, service: IngestOfTests) -> None:
    """The service refuses a whole message permanently; the messages behind it are sent again and stored."""
    service.behaviour.end_before_answer = lambda _number, event: (
        ServiceEnd(grpc.StatusCode.INVALID_ARGUMENT, "BATCH_TOO_LARGE") if event.id == "0" else None
    )
    async with emitter_to(running) as emitter:
        emits = (emitter.emit(type="t", source="/s", id=str(number)) for number in range(1_500))
        ends = await asyncio.gather(*emits, return_exceptions=True)
    refused, stored = ends[:500], ends[500:]
    assert all(isinstance(error, hooktide.InvalidEvent) and error.outcome_unknown for error in refused)
    assert all(isinstance(receipt, hooktide.Receipt) for receipt in stored)
    assert service.ids == [str(number) for number in range(500, 1_500)]


async def test_an_answer_of_the_wrong_length_is_not_believed(running: Running, service: IngestOfTests) -> None:
    """The results cannot be matched with the events, so the events are sent again on a new stream."""
    service.behaviour.forget_a_result = lambda: service.streams == 1
    async with emitter_to(running) as emitter:
        receipts = await emit_many(emitter, 3)
    assert service.streams == 2
    assert all(receipt.duplicate for receipt in receipts)


async def test_emits_wait_where_the_backlog_is_full(running: Running, service: IngestOfTests) -> None:
    """With room for 10 events, only 10 reach the service while it answers nothing; all arrive in order when it answers."""
    service.behaviour.answering.clear()
    async with emitter_to(running, backlog_events_max=10) as emitter:
        emits = asyncio.create_task(emit_many(emitter, 35))
        await service.until(lambda: len(service.seen) == 10)
        for _ in range(100):
            await asyncio.sleep(0)
        assert len(service.seen) == 10
        service.behaviour.answering.set()
        await emits
    assert service.ids == [str(number) for number in range(35)]


async def test_the_backlog_is_bounded_in_bytes_too(running: Running, service: IngestOfTests) -> None:
    service.behaviour.answering.clear()
    async with emitter_to(running, backlog_bytes_max=50_000) as emitter:
        emits = [asyncio.create_task(emitter.emit(type="t", source="/s", data=b"x" * 20_000)) for _ in range(5)]
        large = asyncio.create_task(emitter.emit(type="t", source="/s", data=b"x" * 60_000))
        await service.until(lambda: len(service.seen) == 2)
        for _ in range(100):
            await asyncio.sleep(0)
        assert len(service.seen) == 2
        service.behaviour.answering.set()
        await asyncio.gather(*emits, large)


async def test_a_cancelled_emit_gives_its_place_back_wherever_it_was(running: Running, service: IngestOfTests) -> None:
    """An emit is cancelled after it was sent, while it waits for a place, or just as it gets the place: the others go on."""
    service.behaviour.answering.clear()
    async with emitter_to(running, backlog_events_max=2) as emitter:
        emits = [asyncio.create_task(emitter.emit(type="t", source="/s", id=str(number))) for number in range(6)]
        await service.until(lambda: len(service.seen) == 2)
        emits[0].cancel()
        emits[3].cancel()
        await asyncio.sleep(0)
        emits[2].cancel()
        service.behaviour.answering.set()
        ends = await asyncio.gather(*emits, return_exceptions=True)
    assert [isinstance(end, asyncio.CancelledError) for end in ends] == [True, False, True, True, False, False]
    assert {"1", "4", "5"} <= set(service.ids)


async def test_an_event_cancelled_before_it_was_sent_is_never_sent(running: Running, service: IngestOfTests) -> None:
    await running.stop()
    async with emitter_to(running) as emitter:
        cancelled = asyncio.create_task(emitter.emit(type="t", source="/s", id="cancelled"))
        kept = asyncio.create_task(emitter.emit(type="t", source="/s", id="kept"))
        await asyncio.sleep(0)
        cancelled.cancel()
        await running.start()
        await kept
    assert service.seen == ["kept"]


async def test_without_a_service_an_emit_ends_at_its_timeout(running: Running) -> None:
    await running.stop()
    async with emitter_to(running, timeout=0.3, backlog_events_max=1) as emitter:
        queued, waiting = await asyncio.gather(
            emitter.emit(type="t", source="/s"), emitter.emit(type="t", source="/s"), return_exceptions=True
        )
    for error in (queued, waiting):
        assert isinstance(error, hooktide.Unavailable)
        assert "was not sent" in str(error)
        assert (error.reason, error.retryable, error.outcome_unknown) == ("DEADLINE_EXCEEDED", True, False)
    assert "refused" in str(queued)


async def test_an_unanswered_event_ends_with_its_outcome_unknown(running: Running, service: IngestOfTests) -> None:
    """The error holds the event, so that the caller can emit it again to settle the outcome."""
    service.behaviour.answering.clear()
    async with emitter_to(running, timeout=0.3) as emitter:
        with pytest.raises(hooktide.Unavailable, match="may or may not be stored") as raised:
            await emitter.emit(type="t", source="/s", data={"id": 7})
        assert raised.value.outcome_unknown
        assert raised.value.event is not None
        await service.until(lambda: bool(service.seen))
        service.behaviour.answering.set()
        await emitter.emit_event(raised.value.event)
    assert service.ids == [raised.value.event.id]


async def test_closing_waits_for_what_is_under_way(running: Running, service: IngestOfTests) -> None:
    service.behaviour.answering.clear()
    emitter = emitter_to(running, backlog_events_max=5)
    emits = asyncio.create_task(emit_many(emitter, 20))
    await service.until(lambda: len(service.seen) == 5)
    closing = asyncio.create_task(emitter.aclose())
    await asyncio.sleep(0)
    service.behaviour.answering.set()
    await closing
    assert len(await emits) == 20
    await service.until(lambda: service.streams_open == 0)
    await emitter.aclose()
    with pytest.raises(hooktide.EmitterClosed, match="was not sent"):
        await emitter.emit(type="t", source="/s")


async def test_closing_fails_loudly_what_it_cannot_wait_for(running: Running, service: IngestOfTests) -> None:
    service.behaviour.answering.clear()
    emitter = emitter_to(running, close_timeout=0.1, backlog_events_max=5)
    emits = asyncio.gather(*(emitter.emit(type="t", source="/s") for _ in range(8)), return_exceptions=True)
    await service.until(lambda: len(service.seen) == 5)
    await emitter.aclose()
    ends = await emits
    assert all(isinstance(error, hooktide.EmitterClosed) for error in ends)
    assert [error.outcome_unknown for error in ends if isinstance(error, hooktide.EmitError)] == [True] * 5 + [False] * 3


async def test_an_emitter_that_was_never_used_closes_at_once(running: Running, service: IngestOfTests) -> None:
    async with emitter_to(running):
        pass
    assert service.streams == 0


@pytest.mark.parametrize(
    "limits",
    [{"timeout": 0.0}, {"backlog_events_max": 0}, {"backlog_bytes_max": 0}],
    ids=lambda limits: next(iter(limits)),
)
def test_limits_of_nothing_are_refused(limits: dict[str, int]) -> None:
    make: Callable[..., hooktide.Emitter] = hooktide.Emitter
    with pytest.raises(ValueError, match="above 0"):
        make("127.0.0.1:1", key="hkt_test", **limits)
