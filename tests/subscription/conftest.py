import base64
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.runtime.configuration.settings import SubscriptionSettings
from services.runtime.configuration.settings_reader import read_settings
from tests.subscription.client import Client, served

SECRET_KEY = "k1:" + base64.b64encode(bytes(range(32))).decode()


@pytest.fixture
def settings(tmp_path: Path) -> SubscriptionSettings:
    """The settings of a registry in a directory of its own, on free ports."""
    return read_settings(
        SubscriptionSettings,
        {
            "HOOKTIDE_DATA_DIR": str(tmp_path),
            "HOOKTIDE_SERVICE_TOKEN": "hts_a-token-for-this-test-only",
            "HOOKTIDE_SECRET_KEY": SECRET_KEY,
            "HOOKTIDE_SUBSCRIPTION_LISTEN": "127.0.0.1:0",
            "HOOKTIDE_SUBSCRIPTION_ADMIN_LISTEN": "127.0.0.1:0",
            # Tests make many wrong calls in a row.
            "HOOKTIDE_AUTHENTICATION_FAILURES_BURST": "1000",
        },
    )


@pytest.fixture
async def client(settings: SubscriptionSettings) -> AsyncIterator[Client]:
    """A client of a registry that runs for one test."""
    async with served(settings) as connected:
        yield connected
