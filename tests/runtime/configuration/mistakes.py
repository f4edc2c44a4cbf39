"""Mistakes: what a process that cannot start says about its settings."""

import pytest

from services.runtime.configuration.common_settings import Settings
from services.runtime.configuration.settings_reader import read_settings
from services.runtime.service_process import StartError


def mistakes(kind: type[Settings], environ: dict[str, str]) -> list[str]:
    """Return the lines of the refusal, one for each mistake."""
    with pytest.raises(StartError) as caught:
        read_settings(kind, environ)
    return [line.strip() for line in str(caught.value).splitlines()]
