import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import hooktide
import pytest

from tests.emitter.service import IngestOfTests, Running
from tests.support.events import cloud_event


async def test_many_threads_share_one_stream(running: Running, service: IngestOfTests) -> None:
    def work() -> list[hooktide.Receipt]:
        with (
            hooktide.SyncEmitter(running.target, key="hkt_test", timeout=10) as emitter,
            ThreadPoolExecutor(max_workers=8) as threads,
        ):
            return list(threads.map(lambda number: emitter.emit(type="t", source="/s", id=str(number)), range(200)))

    receipts = await asyncio.to_thread(work)
    assert [receipt.event_id for receipt in receipts] == [f"evt_{number}" for number in range(200)]
    assert service.streams == 1


async def test_a_ready_event_is_published_from_a_thread(running: Running, service: IngestOfTests) -> None:
    def work() -> hooktide.Receipt:
        with hooktide.SyncEmitter(running.target, key="hkt_test", timeout=10) as emitter:
            return emitter.emit_event(cloud_event("x"))

    assert (await asyncio.to_thread(work)).event_id == "evt_x"
    assert service.ids == ["x"]


async def test_both_emitters_ask_the_callers_default_for_json(running: Running) -> None:
    marker = object()
    asked: list[object] = []

    def default(value: object) -> object:
        asked.append(value)
        return "something"

    def work() -> None:
        with hooktide.SyncEmitter(running.target, key="hkt_test", timeout=10, default=default) as emitter:
            emitter.emit(type="t", source="/s", data=[marker])

    await asyncio.to_thread(work)
    async with hooktide.Emitter(running.target, key="hkt_test", timeout=10, default=default) as emitter:
        await emitter.emit(type="t", source="/s", data={"a": marker})
    assert asked == [marker, marker]


async def test_errors_reach_the_thread(running: Running) -> None:
    await running.stop()

    def work() -> None:
        with hooktide.SyncEmitter(running.target, key="hkt_test", timeout=0.2) as emitter:
            with pytest.raises(hooktide.InvalidEvent):
                emitter.emit(type="t", source="/s", data=object())
            with pytest.raises(hooktide.Unavailable):
                emitter.emit(type="t", source="/s")

    await asyncio.to_thread(work)


async def test_closing_waits_for_the_emits_of_other_threads(running: Running, service: IngestOfTests) -> None:
    service.behaviour.answering.clear()
    emitter = hooktide.SyncEmitter(running.target, key="hkt_test", timeout=10)
    emit = asyncio.create_task(asyncio.to_thread(emitter.emit, type="t", source="/s", id="x"))
    await service.until(lambda: service.seen == ["x"])
    closing = [asyncio.create_task(asyncio.to_thread(emitter.close)) for _ in range(2)]
    service.behaviour.answering.set()
    await asyncio.gather(*closing)
    assert (await emit).event_id == "evt_x"
    with pytest.raises(hooktide.EmitterClosed):
        emitter.emit(type="t", source="/s")
    assert "hooktide-emitter" not in [thread.name for thread in threading.enumerate()]


async def test_closing_fails_loudly_what_it_cannot_wait_for(running: Running, service: IngestOfTests) -> None:
    service.behaviour.answering.clear()
    emitter = hooktide.SyncEmitter(running.target, key="hkt_test", timeout=10, close_timeout=0.1)
    emit = asyncio.create_task(asyncio.to_thread(emitter.emit, type="t", source="/s", id="x"))
    await service.until(lambda: service.seen == ["x"])
    await asyncio.to_thread(emitter.close)
    with pytest.raises(hooktide.EmitterClosed) as raised:
        await emit
    assert raised.value.outcome_unknown
