import asyncio
import contextlib
import errno
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.runtime.service_process import Addresses, FatalError, ServiceProcess, cannot_listen, serve_until_stopped
from tests.support.waiting import until


async def test_a_service_runs_until_its_process_is_asked_to_stop_and_says_where(tmp_path: Path) -> None:
    process, seen = ServiceProcess("probe", ready_file=tmp_path / "ready.json"), list[str]()

    @contextlib.asynccontextmanager
    async def running() -> AsyncIterator[Addresses]:
        seen.append("started")
        yield Addresses(listen="127.0.0.1:1", admin="127.0.0.1:2")
        seen.append("stopped")

    async with asyncio.TaskGroup() as group:
        group.create_task(serve_until_stopped(running(), process))
        await until((tmp_path / "ready.json").exists)
        assert seen == ["started"]
        process.stop()
    assert seen == ["started", "stopped"]
    assert json.loads((tmp_path / "ready.json").read_text()) == {"listen": "127.0.0.1:1", "admin": "127.0.0.1:2"}


async def test_the_first_failure_ends_the_process_and_is_the_one_that_is_raised() -> None:
    process = ServiceProcess("probe")
    process.raise_failure()
    process.fail(OSError("the first"))
    process.fail(OSError("the second"))
    assert process.stopping.is_set()
    with pytest.raises(OSError, match="the first"):
        process.raise_failure()


async def test_a_cause_outside_the_code_is_found_in_a_group_of_errors() -> None:
    process = ServiceProcess("probe")
    process.fail(ExceptionGroup("two", [ValueError("a bug"), ExceptionGroup("one", [FatalError("the file is gone")])]))
    with pytest.raises(FatalError, match="the file is gone"):
        process.raise_failure()


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (errno.EADDRINUSE, "another process uses this address; stop that process, or choose another address"),
        (errno.EADDRNOTAVAIL, "this is not an address of this machine"),
        (errno.EACCES, "choose a port above 1023"),
        (errno.ENETDOWN, "choose another address"),
    ],
)
def test_an_address_that_cannot_be_bound_says_what_to_change(number: int, says: str) -> None:
    message = str(cannot_listen("127.0.0.1:80", OSError(number, "Why")))
    assert message.startswith("cannot listen on 127.0.0.1:80: ")
    assert says in message
