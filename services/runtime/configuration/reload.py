"""Reload: SIGHUP reads the settings anew; the new set is applied as a whole, or nothing changes.

SIGHUP → read settings → prepare, by every part that uses them → apply

Law 1: nothing is applied before all parts have prepared. One refusal leaves everything as it was, with an error line for each mistake.
Law 2: a setting that is read only at the start keeps its value until a restart, and a warning says so.
Law 3: log lines name variables, never their values.
"""

import asyncio
import functools
import os
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Generic, TypeVar

from prometheus_client import Counter, Gauge

from services.runtime.background import in_background
from services.runtime.configuration.common_settings import Settings
from services.runtime.configuration.settings_file import masked
from services.runtime.configuration.settings_reader import read_settings, reloaded_fields, variable
from services.runtime.logs import logger, set_log_level
from services.runtime.rpc.access import ServiceTokens
from services.runtime.service_process import ServiceProcess, StartError

Kind = TypeVar("Kind", bound=Settings)
Derived = TypeVar("Derived")
Apply = Callable[[], None]

_reloads = Counter("hooktide_reloads_total", "Reloads of the settings, by outcome.", ["outcome"])
_last_reload_ok = Gauge("hooktide_last_reload_ok", "0 if the last reload of the settings was refused, else 1.")
_last_reload_ok.set(1)


class Reloadable(Generic[Kind]):
    """The settings in force, and the functions that take over new ones."""

    def __init__(self, settings: Kind, read: Callable[[], Kind] | None = None) -> None:
        """Take the settings of the start. `read` reads them anew, by default from the environment and the settings file."""
        self.settings = settings
        """The settings in force. Read this each time; do not keep a copy."""
        self._read = read or functools.partial(read_settings, type(settings))
        self._prepares: list[Callable[[Kind], Awaitable[Apply]]] = []
        self.on_reload(lambda new: set_log_level(new.log_level))

    def on_reload(self, apply: Callable[[Kind], None]) -> None:
        """Call `apply` with each new set of settings; it must not fail."""

        async def prepare(settings: Kind) -> Apply:
            return functools.partial(apply, settings)

        self._prepares.append(prepare)

    def on_prepare(self, prepare: Callable[[Kind], Awaitable[Apply]]) -> None:
        """Call `prepare` with each new set: it raises `StartError` to refuse the set, or returns a function that applies it."""
        self._prepares.append(prepare)

    def derived(self, make: Callable[[Kind], Derived], replace: Callable[[Derived, Derived], None]) -> Derived:
        """Return the value that `make` makes of the settings; after a reload `replace` takes this value and the one of the new settings.

        `make` raises `StartError` to refuse the settings.
        """
        value = make(self.settings)

        async def prepare(settings: Kind) -> Apply:
            return functools.partial(replace, value, make(settings))

        self._prepares.append(prepare)
        return value

    async def reload(self) -> bool:
        """Read the settings anew and apply them; return whether they were accepted."""
        try:
            read = await asyncio.to_thread(self._read)
            hidden = await asyncio.to_thread(masked, os.environ)
            new, fixed = self._kept(read)
            applies = await self._prepared(new)
        except StartError as error:
            for line in str(error).splitlines():
                logger().error("settings.refused", detail=line.strip())
            return _refused()
        except Exception:  # noqa: BLE001 - a bug, logged with its traceback; nothing has changed yet, so work goes on
            logger().exception("settings.refused")
            return _refused()
        changed = [variable(name) for name in type(new).model_fields if getattr(new, name) != getattr(self.settings, name)]
        self.settings = new
        for apply in applies:
            apply()
        _reloads.labels("applied").inc()
        _last_reload_ok.set(1)
        for name in fixed:
            logger().warning("settings.restart_needed", variable=name, detail="this setting is read only at the start; restart the service")
        for name in hidden:
            logger().warning(
                "settings.overridden",
                variable=name,
                detail="the settings file has another value, but the environment variable has precedence",
            )
        logger().info("settings.reloaded", changed=",".join(changed) or "none")
        return True

    def _kept(self, read: Kind) -> tuple[Kind, list[str]]:
        """Return the new settings, with old values for settings that need a restart, and the variables of those that have changed."""
        stays = {name: getattr(self.settings, name) for name in type(read).model_fields if name not in reloaded_fields(type(read))}
        fixed = [variable(name) for name, value in stays.items() if getattr(read, name) != value]
        return read.model_copy(update=stays), fixed

    async def _prepared(self, new: Kind) -> list[Apply]:
        applies, mistakes = [], []
        for prepare in self._prepares:
            try:
                applies.append(await prepare(new))
            except StartError as error:
                mistakes.append(str(error))
        if mistakes:
            raise StartError("\n".join(mistakes))
        return applies


def _refused() -> bool:
    _reloads.labels("refused").inc()
    _last_reload_ok.set(0)
    return False


def service_tokens(reloadable: Reloadable[Kind]) -> ServiceTokens:
    """Return the tokens by which the services authenticate each other, kept up to date; raises `StartError` if there is no token."""
    tokens = ServiceTokens(reloadable.settings.tokens())

    async def prepare(settings: Kind) -> Apply:
        return functools.partial(tokens.replace, await asyncio.to_thread(settings.tokens))

    reloadable.on_prepare(prepare)
    return tokens


def reloading(reloadable: Reloadable[Kind], process: ServiceProcess) -> AbstractAsyncContextManager[None]:
    """While the body runs, reload each time that the process is asked to."""

    async def run() -> None:
        while True:
            await process.reload_asked.wait()
            process.reload_asked.clear()
            await reloadable.reload()

    return in_background(run())
