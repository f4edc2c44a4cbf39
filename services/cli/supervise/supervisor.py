"""Supervisor: runs the four services as processes of their own, and restarts each one that ends.

[supervisor] → subscription → gateway, ingest → delivery

Law 1: no service outlives the supervisor, even if the supervisor is killed: each service notices the end of its pipe.
Law 2: if a service cannot start the first time, the supervisor ends with that service's message. Later a service that ends is restarted.
Law 3: all addresses are known before the first service starts, and stay the same.
"""

import asyncio
import contextlib
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from services.cli.composition import Bootstrap
from services.cli.readiness import READY, TIMEOUT_S, ReadinessWatch, probing, readiness
from services.cli.supervise import service_environment
from services.cli.supervise.data_directory import DamagedKeysError, DataDirectory, Keys, write_private
from services.cli.supervise.log_file import LogFile
from services.cli.supervise.port_reservation import Reservations
from services.cli.supervise.service_environment import SERVICES, STOP_ORDER
from services.runtime.background import until_one_ends
from services.runtime.child_process import Child, RestartDelay, how_ended, usable_cores
from services.runtime.configuration.default_ports import LOOPBACK
from services.runtime.configuration.settings import DeliverySettings, IngestSettings, SubscriptionSettings
from services.runtime.configuration.settings_file import with_settings_file
from services.runtime.configuration.settings_reader import read_settings
from services.runtime.database_files import named_database
from services.runtime.database_layout import refuse_other_layout
from services.runtime.service_process import Addresses, FatalError, StartError

READY_WITHIN_S = 60.0
STOP_WITHIN_S = 25.0
_CANNOT_START = 2
_LOGS_EVERY_S = 0.2
_READINESS_EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class Notice:
    """A message to the user, about a service or, if `service` is empty, about the supervisor."""

    service: str
    kind: Literal["waiting", "damaged", "ended", "ready again", "not ready", "at work again", "log"]
    text: str


Notify = Callable[[Notice], None]


class Supervisor:
    """The four services over one data directory."""

    def __init__(
        self,
        data_dir: Path,
        bootstrap: Bootstrap,
        *,
        host: str = LOOPBACK,
        ports: service_environment.Ports | None = None,
        environ: Mapping[str, str] | None = None,
        notify: Notify = lambda _notice: None,
        allow_local_sinks: bool = False,
        delivery_workers: int | None = None,
    ) -> None:
        """Take the data directory, the function that makes a fresh registry's keys, and where to listen.

        The services get `environ` (default: this process's), completed by the values that they need. Sinks on this machine and plain http
        are allowed if `allow_local_sinks` is true, or if HOOKTIDE_SINK_ALLOW is absent and no other machine reaches the public services.
        Server reflection is on unless HOOKTIDE_GRPC_REFLECTION is set.
        `delivery_workers` overrides HOOKTIDE_DELIVERY_WORKERS; without either, there are as many as the cores permit.
        `notify` is called with restarts, changes of readiness, and log lines of level warning and above.
        """
        self.directory = DataDirectory(data_dir)
        self.keys: Keys | None = None
        self._bootstrap = bootstrap
        self._notify = notify
        self._environ = dict(os.environ if environ is None else environ)
        if delivery_workers is not None:
            self._environ["HOOKTIDE_DELIVERY_WORKERS"] = str(delivery_workers)
        given = with_settings_file(self._environ)
        if not given.get("HOOKTIDE_DELIVERY_WORKERS"):  # an empty value counts as none
            workers = service_environment.delivery_workers(service_environment.AUTO, usable_cores())
            self._environ["HOOKTIDE_DELIVERY_WORKERS"] = given["HOOKTIDE_DELIVERY_WORKERS"] = str(workers)
        if "HOOKTIDE_GRPC_REFLECTION" not in given:
            self._environ["HOOKTIDE_GRPC_REFLECTION"] = "true"
        self._given = given
        ports = ports or service_environment.Ports({})
        self._planned = {name: service_environment.planned(name, host=host, ports=ports, environ=given) for name in SERVICES}
        self.sink_allow = service_environment.sink_allow(given, others_reach=self.is_reached_by_others, local=allow_local_sinks)
        if allow_local_sinks or "HOOKTIDE_SINK_ALLOW" not in given:
            # Otherwise it stays unset: in the environment it would hide a new value that a reload finds in the settings file.
            self._environ["HOOKTIDE_SINK_ALLOW"] = self.sink_allow
        self._addresses: dict[str, Addresses] = {}
        self._reservations = Reservations()
        self._was_ready: set[str] = set()
        self._reload_once_ready: set[str] = set()
        self._children: dict[str, Child] = {}
        self._is_ready = {name: asyncio.Event() for name in SERVICES}
        self._logs: dict[str, LogFile] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._lock: int | None = None

    async def start(self) -> Keys | None:
        """Start all services and wait until they take work; return the first keys if this call made them.

        Raises `StartError` if a service cannot start, a database has another layout, or another supervisor holds the data directory.
        """
        await asyncio.to_thread(self._refuse_other_layouts)
        self.directory.create()
        self._lock = lock = await self.directory.lock(lambda text: self._notify(Notice("", "waiting", text)))
        try:
            self._addresses = {name: self._reservations.settle(planned) for name, planned in self._planned.items()}
            made = await self._prepare()
            works = {name: self._keep(name, lock) for name in SERVICES} | {
                "logs": self._follow_logs(),
                "readiness": self._watch_readiness(),
            }
            for name, work in works.items():
                self._tasks[name] = asyncio.create_task(work, name=name)  # owned: stop() ends them one by one, in order
            await self._all_ready()
            write_private(
                self.directory.addresses_file,
                json.dumps(
                    {
                        name: {
                            "listen": at.listen,
                            "admin": at.admin,
                            "scheme": self.scheme(name),
                            "admin_scheme": self.scheme("admin"),
                        }
                        for name, at in self._reached()
                    }
                ),
            )
        except BaseException:
            await self.stop()
            raise
        return made

    def _refuse_other_layouts(self) -> None:
        """Raise `StartError` if a database has another layout, before anything in the data directory is changed."""
        for service in ("subscription", "ingest", "delivery"):
            url = self._given.get(f"HOOKTIDE_{service.upper()}_DATABASE_URL", "")
            refuse_other_layout(named_database(url, self.directory.path, service))

    async def stop(self) -> None:
        """Stop all services in order, each within 25 s, and release the data directory. May be called again."""
        for name in ("readiness", *STOP_ORDER, "logs"):
            task = self._tasks.pop(name, None)
            if task is not None:
                task.cancel()
                # If the task has failed, `start` or `run` has raised its error.
                await asyncio.gather(task, return_exceptions=True)
        if self._lock is not None:
            self.directory.addresses_file.unlink(missing_ok=True)
            self._reservations.release()
            os.close(self._lock)
            self._lock = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        await self.stop()

    async def run(self) -> None:
        """Run until the supervisor itself fails, and raise its error."""
        done, _ = await asyncio.wait(self._tasks.values(), return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()

    def addresses(self, service: str) -> Addresses:
        """Return the addresses by which this machine connects to a service."""
        own = self._addresses[service]
        return Addresses(listen=service_environment.reachable(own.listen), admin=service_environment.reachable(own.admin))

    def scheme(self, listener: str) -> str:
        """Return "https" for a listener with TLS, else "http"; `listener` is the name of a service, or "admin"."""
        return "https" if self._given.get(f"HOOKTIDE_{listener.upper()}_TLS_CERT_FILE") else "http"

    def pid(self, service: str) -> int:
        """Return a service's process id."""
        return self._children[service].pid

    def kill(self, service: str) -> None:
        """Kill a service with SIGKILL; it is restarted, and a notice says when it is ready again."""
        self._is_ready[service].clear()
        self._children[service].kill()

    def reload(self) -> None:
        """Make all services read their settings anew; a service that is starting does so once it is ready."""
        for name, child in self._children.items():
            if self._is_ready[name].is_set():
                child.reload()
            else:
                self._reload_once_ready.add(name)

    @property
    def delivery_workers(self) -> int:
        """How many processes deliver."""
        return read_settings(DeliverySettings, self._environ).delivery_workers

    @property
    def allows_local_sinks(self) -> bool:
        """Whether webhooks may go to http and to this machine; `up` permits this by default if only this machine reaches it."""
        return self.sink_allow.endswith(service_environment.SINK_ALLOW_LOCAL)

    @property
    def is_reached_by_others(self) -> bool:
        """Whether the REST API or the ingest service listens where other machines can reach it."""
        return any(not service_environment.is_loopback(self._planned[name].listen) for name in service_environment.PUBLIC)

    def _reached(self) -> list[tuple[str, Addresses]]:
        return [(name, self.addresses(name)) for name in SERVICES]

    async def _prepare(self) -> Keys | None:
        """Make the service token and the secret key, unless the user provides them, and the first keys."""
        environ, given = self._environ, self._given.keys()
        environ["HOOKTIDE_DATA_DIR"] = str(self.directory.path)
        if not {"HOOKTIDE_SERVICE_TOKEN", "HOOKTIDE_SERVICE_TOKEN_FILE"} & given:
            self.directory.create_token()
            environ["HOOKTIDE_SERVICE_TOKEN_FILE"] = str(self.directory.token_file)
        if not {"HOOKTIDE_SECRET_KEY", "HOOKTIDE_SECRET_KEY_FILE"} & given:
            self.directory.create_secret_key()
            environ["HOOKTIDE_SECRET_KEY_FILE"] = str(self.directory.secret_key_file)
        for name in SERVICES:
            self._logs[name] = LogFile(self.directory.log_file(name))
        self._refuse_contradictions()
        settings = read_settings(SubscriptionSettings, environ)
        first = await asyncio.to_thread(self._bootstrap, settings)
        made = None if first is None else self.directory.write_keys(first)
        try:
            self.keys = made or self.directory.read_keys()
        except DamagedKeysError as error:
            # The services do not need this file.
            self._notify(Notice("", "damaged", str(error)))
        return made

    def _refuse_contradictions(self) -> None:
        """Raise `StartError` if settings of two services contradict each other; a single wrong setting is refused by its service."""
        try:
            ingest, delivery = read_settings(IngestSettings, self._environ), read_settings(DeliverySettings, self._environ)
        except StartError:
            return
        if (why := delivery.why_expiry_is_too_long(ingest.ingest_retention_hours * 3600)) is not None:
            raise StartError(why)

    async def _all_ready(self) -> None:
        try:
            async with asyncio.timeout(READY_WITHIN_S):
                await until_one_ends(self._until_all_ready(), self.run())
        except TimeoutError:
            late = ", ".join(name for name, event in self._is_ready.items() if not event.is_set())
            message = f"these services were not ready after {READY_WITHIN_S:g} s: {late}; see {self.directory.path / 'logs'}"
            raise StartError(message) from None

    async def _until_all_ready(self) -> None:
        for event in self._is_ready.values():
            await event.wait()

    async def _keep(self, service: str, lock: int) -> None:
        """Run a service for as long as the supervisor runs."""
        if service in service_environment.STARTS_AFTER:
            await self._is_ready[service_environment.STARTS_AFTER[service]].wait()
        delay = RestartDelay()
        while True:
            began = time.monotonic()
            code = await self._run_once(service, lock)
            restart_s = delay.after(time.monotonic() - began)
            why = f"{how_ended(code)}, see {self.directory.log_file(service)}" if code > 0 else how_ended(code)
            self._notify(Notice(service, "ended", f"{why}; it starts again in {restart_s:g} s"))
            await asyncio.sleep(restart_s)

    async def _run_once(self, service: str, lock: int) -> int:
        """Run a service to its end and return its exit code; if this is cancelled, stop the service."""
        log, again = self._logs[service], service in self._was_ready
        said_to = log.size()
        child = self._start_child(service, lock)
        try:
            if await child.ready():
                self._was_ready.add(service)
                self._is_ready[service].set()
                if service in self._reload_once_ready:
                    self._reload_once_ready.discard(service)
                    child.reload()
                if again:
                    self._notify(Notice(service, "ready again", f"running again as process {child.pid}"))
            code = await child.ended()
        finally:
            self._is_ready[service].clear()
            await child.stop(STOP_WITHIN_S)
        if service not in self._was_ready:
            if code == _CANNOT_START:
                raise StartError(f"{service}: {log.last_words(service, said_to)}")
            raise StartError(f"{service}: {how_ended(code)} before it was ready; see {log.path}")
        return code

    def _start_child(self, service: str, lock: int) -> Child:
        others = {name: at.listen for name, at in self._addresses.items()}
        environ = service_environment.environment(service, own=self._addresses[service], others=others, base=self._environ)
        try:
            with self._logs[service].open() as output:
                child = Child([service], environ=environ, ready_file=self.directory.ready_file(service), output=output, inherited=(lock,))
        except FileNotFoundError as error:
            message = f"cannot start {service}: {self.directory.path} was removed or moved; put it back, and start again"
            raise FatalError(message) from error
        self._children[service] = child
        return child

    async def _watch_readiness(self) -> None:
        """Report services that run and are not fully ready. The gateway is left out, since it only repeats what the others report."""
        watches = {name: ReadinessWatch() for name in SERVICES if name != "gateway"}
        scheme = self.scheme("admin")
        async with probing(TIMEOUT_S, tls=scheme == "https", environ=self._given) as session:
            while True:
                await asyncio.sleep(_READINESS_EVERY_S)
                for name, watch in watches.items():
                    if not self._is_ready[name].is_set():  # the end of a service is reported elsewhere
                        continue
                    told = watch.looked(await readiness(session, f"{scheme}://{self.addresses(name).admin}"))
                    if told == READY:
                        self._notify(Notice(name, "at work again", "is fully ready again"))
                    elif told is not None:
                        self._notify(Notice(name, "not ready", told))

    async def _follow_logs(self) -> None:
        while True:
            await asyncio.sleep(_LOGS_EVERY_S)
            for name, log in self._logs.items():
                with contextlib.suppress(OSError):  # a full disk must not end the services
                    for line in log.alarming_lines():
                        self._notify(Notice(name, "log", line))
