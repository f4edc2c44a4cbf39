"""Worker process: the environment that a worker starts with, and what its parent logs if it cannot start again."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from services.delivery.parent import worker_process
from services.delivery.parent.worker_process import WorkerProcess
from services.runtime.service_process import WorkerSeat, refusal_file
from tests.support.waiting import PATIENCE_S, until


class EndingChild:
    """A worker that is ready once, and is refused each time it starts again."""

    started: list[Mapping[str, str]]
    pid = 1

    def __init__(self, _arguments: Sequence[str], *, environ: Mapping[str, str], ready_file: Path, **_more: Any) -> None:
        self.started.append(environ)
        self._is_first = len(self.started) == 1
        if not self._is_first:
            refusal_file(ready_file).write_text("its ledger is gone")

    async def ready(self) -> bool:
        """Return whether this is the first start."""
        return self._is_first

    async def ended(self) -> int:
        """Return the exit code."""
        return 1 if self._is_first else 2

    async def stop(self, _timeout_s: float) -> None:
        """Do nothing: it has ended."""


async def test_a_restarted_worker_keeps_the_number_of_workers_and_says_why_it_cannot_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The settings may name another number by then."""
    monkeypatch.setattr(EndingChild, "started", [], raising=False)
    monkeypatch.setattr(worker_process, "Child", EndingChild)
    monkeypatch.setenv("HOOKTIDE_DELIVERY_WORKERS", "3")
    with capture_logs() as logs:
        running = asyncio.create_task(WorkerProcess(WorkerSeat(1, tmp_path), 2, 0).run())
        await until(lambda: len(EndingChild.started) > 2, PATIENCE_S, "the worker is started a third time")
        running.cancel()
    assert {environ["HOOKTIDE_DELIVERY_WORKERS"] for environ in EndingChild.started} == {"2"}
    assert [each["how"] for each in logs][:2] == ["ended with exit code 1", "ended with exit code 2: its ledger is gone"]
