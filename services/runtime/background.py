"""Background: runs work beside the code that needs it.

`in_background` serves one block. `until_one_ends` runs several works until the first of them ends. `shared_task` serves several callers,
none of which owns the work.
"""

import asyncio
import contextlib
import contextvars
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

_Result = TypeVar("_Result")


@contextlib.asynccontextmanager
async def in_background(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run `work` while the body runs, and cancel it at the end. If it fails, the body is cancelled and an exception group is raised."""
    failure: Exception | None = None
    async with asyncio.TaskGroup() as group:
        task = group.create_task(work)
        try:
            yield
        except Exception as error:  # noqa: BLE001 - raised again below: the group would wrap it, and hide its message
            failure = error
        finally:
            task.cancel()
    if failure is not None:
        raise failure


async def until_one_ends(*works: Coroutine[Any, Any, object]) -> list[bool]:
    """Run `works` until one of them ends, then cancel the others and wait for them; return whether each has ended by itself.

    Raises the error of a work that has failed.
    """
    tasks = [asyncio.ensure_future(work) for work in works]  # owned: ended below
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        ended = [task.done() for task in tasks]
        for task in tasks:
            if task.done():
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return ended


def shared_task(work: Coroutine[Any, Any, _Result]) -> asyncio.Task[_Result]:
    """Return a task whose result several callers share; they await it by `asyncio.shield`. The caller keeps a reference to it.

    The work must be bounded in time by itself. It runs in a new context, so that the first caller's deadline does not apply to the others.
    """
    # owned: the caller keeps it, and it ends by itself
    task = asyncio.get_running_loop().create_task(work, context=contextvars.Context())
    task.add_done_callback(_retrieve)
    return task


def _retrieve(task: asyncio.Task[Any]) -> None:
    """Mark the task's exception as retrieved: its callers receive it, so that asyncio need not report it."""
    if not task.cancelled():
        task.exception()
