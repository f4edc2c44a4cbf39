"""Read ahead: reads the log ahead of routing. All records that arrive while a batch is routed make up the next batch.

event log → [read_ahead] → read_barrier → log_follower

A question to the registry for its revision, if one is needed, takes longer than the routing of a few events. If each message of the log
were a batch of its own, many small batches would queue up before the barrier, and the queue would delay every event.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence

from services.eventlog.record import Record

RECORDS_MAX = 1000
BYTES_MAX = 4 * 1024 * 1024


async def read_ahead(batches: AsyncIterator[Sequence[Record]]) -> AsyncGenerator[list[Record], None]:
    """Yield the records of `batches` in their order, each time all that have arrived.

    Reading pauses while `RECORDS_MAX` records or `BYTES_MAX` bytes wait. The iteration ends when `batches` ends. An error of `batches` is
    raised after the records that came before it. A caller that does not read to the end must close it (`contextlib.aclosing`).
    """
    held: list[Record] = []
    arrived, room = asyncio.Event(), asyncio.Event()

    async def read() -> None:
        try:
            size_bytes = 0
            async for records in batches:
                size_bytes = sum(len(record.event) for record in records) + (size_bytes if held else 0)
                held.extend(records)
                arrived.set()
                while len(held) >= RECORDS_MAX or (held and size_bytes >= BYTES_MAX):
                    room.clear()
                    await room.wait()
        finally:
            arrived.set()

    reading = asyncio.get_running_loop().create_task(read())  # owned: ended below
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
                arrived.clear()
                await arrived.wait()
    finally:
        reading.cancel()
        await asyncio.wait([reading])
        if not reading.cancelled():
            reading.exception()  # mark the error as retrieved: it was raised above, or the caller has left
