"""Background: runs a service's endless work beside the block that needs it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from typing import Any


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
