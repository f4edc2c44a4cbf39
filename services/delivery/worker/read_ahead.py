"""Ahead: reads the log ahead of routing, so that all that has come while a batch was under way is the next one.

event log → [ahead] → barrier → route

To ask the registry for its revision, where that must be, takes longer than to route a few events. Were each message of the log routed by
itself, many small ones would queue up before the barrier, and every event would be as late as that queue is long.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence

from services.eventlog.record import Record

RECORDS_MAX = 1000
BYTES_MAX = 4 * 1024 * 1024


async def read_ahead(batches: AsyncIterator[Sequence[Record]]) -> AsyncGenerator[list[Record], None]:
    """Yield the records of `batches`, in their order, each time all that are there.

    While so many or so large ones wait that a bound is reached, nothing is read. Ends as `batches` does, and raises what that
    raises, after what came before it. To be closed (`contextlib.aclosing`) by who does not read to the end.
    """
    held: list[Record] = []
    come, room = asyncio.Event(), asyncio.Event()

    async def read() -> None:
        try:
            size_bytes = 0
            async for records in batches:
                size_bytes = sum(len(record.event) for record in records) + (size_bytes if held else 0)
                held.extend(records)
                come.set()
                while len(held) >= RECORDS_MAX or (held and size_bytes >= BYTES_MAX):
                    room.clear()
                    await room.wait()
        finally:
            come.set()

    reading = asyncio.get_running_loop().create_task(read())
    try:
        while True:
            if held:
                records, held = held, []
                room.set()
                yield records
            elif reading.done():
                await reading
                return
            else:
                come.clear()
                await come.wait()
    finally:
        reading.cancel()
        await asyncio.wait([reading])
        if not reading.cancelled():
            reading.exception()  # heard of above, or nobody's any more
