"""Fixtures: the spawner that starts the processes which these tests kill."""

from collections.abc import Iterator

import pytest

from tests.support.service_spawner import Spawner, running_spawner


@pytest.fixture(scope="session")
def spawner() -> Iterator[Spawner]:
    with running_spawner() as running:
        yield running
