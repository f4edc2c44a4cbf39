import asyncio
import contextvars

import pytest

from services.runtime.background import in_background, shared_task, until_one_ends
from tests.support.waiting import until


async def test_the_work_runs_beside_the_body_and_is_cancelled_at_its_end() -> None:
    seen = []

    async def work() -> None:
        seen.append("begun")
        try:
            await asyncio.Event().wait()
        finally:
            seen.append("ended")

    async with in_background(work()):
        await until(lambda: seen == ["begun"])
    assert seen == ["begun", "ended"]


async def test_a_failure_of_the_body_is_raised_as_it_is() -> None:
    with pytest.raises(ValueError, match=r"^in the body$"):
        async with in_background(asyncio.sleep(3600)):
            raise ValueError("in the body")


async def test_a_failure_of_the_work_cancels_the_body() -> None:
    async def work() -> None:
        raise OSError("in the work")

    with pytest.raises(ExceptionGroup) as caught:
        async with in_background(work()):
            await asyncio.Event().wait()
    assert [str(error) for error in caught.value.exceptions] == ["in the work"]


async def test_the_first_work_to_end_ends_the_others() -> None:
    seen = []

    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            seen.append("ended")

    assert await until_one_ends(asyncio.sleep(0), endless()) == [True, False]
    assert seen == ["ended"]


async def test_the_failure_of_the_first_work_to_end_is_raised_as_it_is() -> None:
    async def fail() -> None:
        raise ValueError("in the work")

    with pytest.raises(ValueError, match=r"^in the work$"):
        await until_one_ends(asyncio.Event().wait(), fail())


async def test_several_callers_share_a_task_whose_first_caller_gives_up() -> None:
    asked = asyncio.Event()

    async def work() -> str:
        await asked.wait()
        return "the answer"

    task = shared_task(work())
    first, second = (asyncio.ensure_future(asyncio.wait_for(asyncio.shield(task), 60)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await until(first.done)
    asked.set()
    assert await second == "the answer"


async def test_a_shared_task_does_not_see_the_context_of_its_first_caller() -> None:
    deadline: contextvars.ContextVar[str] = contextvars.ContextVar("deadline", default="none")

    async def work() -> str:
        return deadline.get()

    deadline.set("the first caller's")
    assert await shared_task(work()) == "none"
