import asyncio

import pytest

from services.runtime.background import in_background
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
