"""Waiting: wait until a condition holds, without guessing how long that takes."""

import asyncio
from collections.abc import Callable


async def until(condition: Callable[[], bool]) -> None:
    """Let other tasks run until a condition holds; fail after 60 seconds."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - what is waited for is not ours to signal
            await asyncio.sleep(0)
