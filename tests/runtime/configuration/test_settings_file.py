from pathlib import Path

import pytest

from services.runtime.configuration.settings import GatewaySettings
from services.runtime.configuration.settings_reader import read_settings
from services.runtime.service_process import StartError


def settings(tmp_path: Path, text: str, **environ: str) -> GatewaySettings:
    file = tmp_path / "settings.env"
    file.write_text(text)
    return read_settings(GatewaySettings, {"HOOKTIDE_SETTINGS_FILE": str(file), **environ})


def refusal(tmp_path: Path, text: str) -> list[str]:
    with pytest.raises(StartError) as caught:
        settings(tmp_path, text)
    return [line.strip() for line in str(caught.value).splitlines()]


def test_a_settings_file_is_read_as_an_env_file(tmp_path: Path) -> None:
    read = settings(tmp_path, '\n# limits\nHOOKTIDE_GATEWAY_BODY_BYTES_MAX=2048\nexport HOOKTIDE_LOG_LEVEL = "debug"\n')
    assert (read.gateway_body_bytes_max, read.log_level) == (2048, "debug")


def test_the_environment_goes_before_the_settings_file_unless_it_is_empty(tmp_path: Path) -> None:
    text = "HOOKTIDE_LOG_LEVEL=debug\n"
    assert settings(tmp_path, text, HOOKTIDE_LOG_LEVEL="error").log_level == "error"
    assert settings(tmp_path, text, HOOKTIDE_LOG_LEVEL="").log_level == "debug"


def test_each_mistake_of_a_settings_file_is_one_line_that_shows_no_value(tmp_path: Path) -> None:
    text = "hunter2\nPATH=hunter2\nHOOKTIDE_LOG_LEVEL=info\nHOOKTIDE_LOG_LEVEL=debug\nHOOKTIDE_SETTINGS_FILE=/hunter2\n"
    lines = refusal(tmp_path, text)
    assert ["line 1" in lines[0], "line 2" in lines[1], "line 4" in lines[2], "line 5" in lines[3]] == [True] * 4
    assert len(lines) == 4
    assert "hunter2" not in "".join(lines)


def test_what_a_settings_file_sets_wrongly_or_misspells_is_reported_as_if_it_stood_in_the_environment(tmp_path: Path) -> None:
    lines = refusal(tmp_path, "HOOKTIDE_LOG_LEVEL=loud\nHOOKTIDE_LOG_LEVL=info\n")
    assert {line.partition("=")[0].partition(" ")[0] for line in lines} == {"HOOKTIDE_LOG_LEVEL", "HOOKTIDE_LOG_LEVL"}


@pytest.mark.parametrize("path", ["/nowhere/at/all", "/"])
def test_a_settings_file_that_cannot_be_read_is_one_clear_line(path: str) -> None:
    with pytest.raises(StartError) as caught:
        read_settings(GatewaySettings, {"HOOKTIDE_SETTINGS_FILE": path})
    assert str(caught.value).startswith(f"HOOKTIDE_SETTINGS_FILE={path}: the file cannot be read: ")
    assert "\n" not in str(caught.value)
