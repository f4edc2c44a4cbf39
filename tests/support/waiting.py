"""Waiting: waits until a condition holds, and fails with its description after a time limit."""

import asyncio
import time
from collections.abc import Awaitable, Callable

PATIENCE_S = 60.0
"""How long to wait for what must happen: far longer than it takes on a busy machine, since waiting costs nothing if all is well.

A test that promises a time measures it by itself.
"""
_TURNS = 100
_EVERY_S = 0.01


async def until(condition: object, within_s: float = PATIENCE_S, what: str = "the condition", every_s: float = _EVERY_S) -> None:
    """Wait until `condition()` holds; let other tasks run first, then check it again and again."""
    assert callable(condition)  # mypy infers no type for a lambda that binds a loop's variable by a default
    end, turns = time.monotonic() + within_s, 0
    while not condition():
        assert time.monotonic() < end, f"not within {within_s} s: {what}"
        await asyncio.sleep(every_s if turns >= _TURNS else 0)
        turns += 1


async def until_so(
    condition: Callable[[], Awaitable[object]], within_s: float = PATIENCE_S, what: str = "the condition", every_s: float = 2 * _EVERY_S
) -> None:
    """Wait until an asynchronous condition holds."""
    end = time.monotonic() + within_s
    while not await condition():
        assert time.monotonic() < end, f"not within {within_s} s: {what}"
        await asyncio.sleep(every_s)
