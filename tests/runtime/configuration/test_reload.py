import functools
import io
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from prometheus_client import REGISTRY

from services.runtime.configuration.common_settings import Settings
from services.runtime.configuration.reload import Apply, Reloadable
from services.runtime.configuration.settings import ALL, GatewaySettings
from services.runtime.configuration.settings_reader import read_settings, reloaded_fields
from services.runtime.logs import configure_logs
from services.runtime.service_process import StartError

SET = "HOOKTIDE_LOG_LEVEL"


class World:
    """Settings in a file, and the objects that use them."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "settings.env"
        self.file.write_text("")
        read = functools.partial(read_settings, GatewaySettings, {"HOOKTIDE_SETTINGS_FILE": str(self.file)})
        self.reloadable = Reloadable(read(), read)
        self.applied: list[str] = []
        self.log = io.StringIO()
        self.reloadable.on_reload(lambda new: self.applied.append(new.log_level))

    async def reload(self, text: str) -> bool:
        """Write the file and reload it."""
        self.file.write_text(text)
        return await self.reloadable.reload()

    def refuse(self, *whys: str) -> None:
        """Let every new set of settings be refused."""
        for why in whys:

            async def prepare(_settings: GatewaySettings, why: str = why) -> Apply:
                raise StartError(why)

            self.reloadable.on_prepare(prepare)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    before = structlog.get_config()
    configure_logs("test", "info")
    made = World(tmp_path)
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(made.log))
    yield made
    structlog.configure(**before)


def counted(outcome: str) -> float:
    return REGISTRY.get_sample_value("hooktide_reloads_total", {"outcome": outcome}) or 0.0


async def test_a_new_set_comes_into_force_for_everybody(world: World) -> None:
    before = counted("applied")
    assert await world.reload(f"{SET}=warning\n")
    assert world.reloadable.settings.log_level == "warning"
    assert world.applied == ["warning"]
    assert counted("applied") == before + 1
    assert await world.reload(f"{SET}=info\n")
    assert f"event=settings.reloaded changed={SET}" in world.log.getvalue()


@pytest.mark.parametrize("text", [f"{SET}=loud\nHOOKTIDE_GATEWAY_BODY_BYTES_MAX=1\n", "no setting\nand another\n"])
async def test_an_invalid_set_changes_nothing_and_each_mistake_is_one_line(world: World, text: str) -> None:
    before, refused = world.reloadable.settings, counted("refused")
    assert not await world.reload(text)
    assert world.reloadable.settings is before
    assert world.applied == []
    assert world.log.getvalue().count("level=error service=test event=settings.refused detail=") == 2
    assert counted("refused") == refused + 1
    assert REGISTRY.get_sample_value("hooktide_last_reload_ok") == 0
    assert await world.reload("")
    assert REGISTRY.get_sample_value("hooktide_last_reload_ok") == 1


async def test_nothing_is_applied_before_everyone_has_accepted_it(world: World) -> None:
    world.refuse("the first reason", "the second reason")
    assert not await world.reload(f"{SET}=debug\n")
    assert world.applied == []
    assert world.reloadable.settings.log_level == "info"
    told = world.log.getvalue()
    assert 'detail="the first reason"' in told
    assert 'detail="the second reason"' in told


async def test_what_is_read_at_the_start_only_stays_and_is_told_of(world: World) -> None:
    assert await world.reload(f"HOOKTIDE_GATEWAY_LISTEN=127.0.0.1:1\n{SET}=warning\n")
    assert world.reloadable.settings.gateway_listen == "127.0.0.1:8080"
    assert world.applied == ["warning"]
    told = world.log.getvalue()
    assert "event=settings.restart_needed variable=HOOKTIDE_GATEWAY_LISTEN" in told
    assert "127.0.0.1:1" not in told


async def test_a_fault_while_settings_are_judged_refuses_them_and_work_goes_on(world: World) -> None:
    async def prepare(_settings: GatewaySettings) -> Apply:
        message = "a fault of ours"
        raise RuntimeError(message)

    world.reloadable.on_prepare(prepare)
    before = world.reloadable.settings
    assert not await world.reload(f"{SET}=debug\n")
    assert (world.reloadable.settings is before, world.applied) == (True, [])
    assert "RuntimeError: a fault of ours" in world.log.getvalue()


async def test_a_line_that_the_environment_overrides_is_told_of(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOKTIDE_SETTINGS_FILE", str(world.file))
    monkeypatch.setenv("HOOKTIDE_GATEWAY_IDLE_SECONDS", "1")
    assert await world.reload(f"HOOKTIDE_GATEWAY_IDLE_SECONDS=7\n{SET}=info\n")
    assert "event=settings.overridden variable=HOOKTIDE_GATEWAY_IDLE_SECONDS" in world.log.getvalue()
    assert world.log.getvalue().count("settings.overridden") == 1


@pytest.mark.parametrize("kind", ALL)
def test_where_data_is_kept_and_who_listens_is_never_reloaded(kind: type[Settings]) -> None:
    assert not any(name.endswith(("listen", "target", "database_url", "data_dir")) for name in reloaded_fields(kind))
    assert "log_level" in reloaded_fields(kind)


async def test_a_derived_value_follows_the_settings_and_may_refuse_them(world: World) -> None:
    def make(settings: GatewaySettings) -> list[str]:
        if settings.log_level == "error":
            raise StartError("not this level")
        return [settings.log_level]

    def replace(value: list[str], new: list[str]) -> None:
        value[:] = new

    value = world.reloadable.derived(make, replace)
    assert value == ["info"]
    assert await world.reload(f"{SET}=debug")
    assert value == ["debug"]
    assert not await world.reload(f"{SET}=error")
    assert value == ["debug"]
