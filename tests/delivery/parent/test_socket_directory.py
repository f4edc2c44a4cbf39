import asyncio
import stat
from pathlib import Path

import pytest

from services.delivery.parent import socket_directory as module
from services.delivery.parent.socket_directory import socket_directory, workers_lock
from services.runtime.service_process import StartError


def test_only_the_owner_can_enter_and_files_of_a_former_parent_are_removed(tmp_path: Path) -> None:
    left, of_another_service = tmp_path / "run" / "delivery" / "log.sock", tmp_path / "run" / "ingest.ready"
    left.parent.mkdir(mode=0o755, parents=True)
    left.touch()
    of_another_service.touch()
    with socket_directory(tmp_path) as directory:
        assert (directory, list(directory.iterdir())) == (left.parent, [])
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert of_another_service.exists()


def test_a_path_that_is_too_long_for_a_socket_is_replaced_by_a_temporary_one(tmp_path: Path) -> None:
    with socket_directory(tmp_path / ("long" * 25)) as directory:
        assert len(str(directory / "delivery-15.sock")) < 100
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert not directory.exists()


async def test_a_parent_waits_for_former_workers_and_names_them_if_they_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = tmp_path / "delivery.db"
    async with workers_lock(database):
        waiting = asyncio.create_task(_lock_once(database))
        await asyncio.sleep(0)
        assert not waiting.done()
    await asyncio.wait_for(waiting, 60)
    monkeypatch.setattr(module, "_WORKERS_END_WITHIN_S", 0.0)
    async with workers_lock(database):
        with pytest.raises(StartError, match="in use by another delivery service"):
            await _lock_once(database)


async def _lock_once(database: Path) -> None:
    async with workers_lock(database):
        pass
