from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import Command, clean_environ, running


@dataclass
class Up:
    """A running `hooktide up`, with what it printed when it was ready."""

    command: Command
    data_dir: Path
    told: dict[str, Any]

    @property
    def api(self) -> str:
        """The REST API's URL."""
        return f"http://{self.told['addresses']['gateway']['listen']}"


@pytest.fixture(scope="session")
async def up(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Up]:
    """All services on free ports, for tests of this folder that only use them."""
    data_dir = tmp_path_factory.mktemp("up") / "data"
    environ = clean_environ(HOOKTIDE_DELIVERY_RETRY_DELAYS_SECONDS="0.2,0.5,1,5", HOOKTIDE_DELIVERY_WORKERS="1")
    async with running("up", "--free-ports", "--json", "--data-dir", str(data_dir), environ=environ) as command:
        yield Up(command, data_dir, await command.json_line())
