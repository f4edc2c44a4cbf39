"""Flow control: the room that all streams share."""

import asyncio

import pytest

from services.ingest.flow_control import StreamFlowControl


async def waiting(flow_control: StreamFlowControl) -> "asyncio.Task[None]":
    """Return a stream that waits for room."""
    task = asyncio.ensure_future(flow_control.wait_for_room())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return task


async def settled(*tasks: "asyncio.Task[None]") -> list[bool]:
    """Return which streams may read on, after each had its chance."""
    for _ in range(3):
        await asyncio.sleep(0)
    return [task.done() for task in tasks]


@pytest.mark.parametrize(("events", "size_bytes"), [(10, 0), (0, 1000)], ids=["events", "bytes"])
async def test_there_is_room_up_to_a_bound_in_events_and_bytes(events: int, size_bytes: int) -> None:
    flow_control = StreamFlowControl(events_max=10, bytes_max=1000)
    async with asyncio.timeout(60):
        await flow_control.wait_for_room()
    flow_control.add(events, size_bytes)
    stream = await waiting(flow_control)
    assert not stream.done()
    flow_control.remove(events, size_bytes)
    async with asyncio.timeout(60):
        await stream
    assert (flow_control.events, flow_control.bytes) == (0, 0)


async def test_streams_read_on_one_by_one_while_there_is_little_room_the_longest_waiting_first() -> None:
    flow_control = StreamFlowControl(events_max=10, bytes_max=1000)
    for _ in range(10):
        flow_control.add(1, 1)
    streams = [await waiting(flow_control) for _ in range(4)]
    flow_control.remove(1, 1)
    assert await settled(*streams) == [True, False, False, False]
    flow_control.add(1, 1)
    flow_control.remove(1, 1)
    assert await settled(*streams) == [True, True, False, False]
    late = await waiting(flow_control)
    assert not late.done(), "whoever comes later waits behind the others, although there is room"
    for _ in range(5):
        flow_control.remove(1, 1)
    assert await settled(*streams, late) == [True] * 5


async def test_a_stream_that_goes_away_hands_its_turn_on() -> None:
    flow_control = StreamFlowControl(events_max=2, bytes_max=1000)
    flow_control.add(2, 2)
    gone, called, other, last = [await waiting(flow_control) for _ in range(4)]
    gone.cancel()
    assert await settled(gone, called, other) == [True, False, False]
    flow_control.remove(1, 1)
    called.cancel()  # just when the caller's turn has come
    assert await settled(called, other, last) == [True, True, False]
    assert (gone.cancelled(), called.cancelled(), other.cancelled()) == (True, True, False)
    last.cancel()
    await asyncio.gather(last, return_exceptions=True)
