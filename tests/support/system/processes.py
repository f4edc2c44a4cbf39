"""Processes: the four services, each an operating-system process that a test may kill and start again."""

import asyncio
import base64
import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import IO, Protocol

import aiohttp
import grpc
import hooktide
from hooktide.delivery.v1 import delivery_pb2_grpc
from hooktide.ingest.v1 import event_log_pb2_grpc, ingest_pb2_grpc
from hooktide.subscription.v1 import catalogue_pb2_grpc, subscription_pb2_grpc

from services.cli.supervise.port_reservation import Reservations
from services.runtime.configuration.settings import SubscriptionSettings
from services.runtime.configuration.settings_reader import read_settings
from services.runtime.rpc.channel_and_server import open_channel, service_metadata
from services.runtime.service_process import Addresses
from services.subscription.bootstrap import BootstrapKeys, bootstrap
from tests.support.waiting import PATIENCE_S

SERVICES = ("subscription", "ingest", "delivery", "gateway")
ROOT = Path(__file__).parents[3]
# Quick enough for tests: a retry follows a failure within fractions of a second, and a circuit breaker stays open as briefly.
QUICK = {
    "HOOKTIDE_DELIVERY_RETRY_DELAYS_SECONDS": ",".join(["0.2"] * 5 + ["0.5"] * 200),
    "HOOKTIDE_DELIVERY_BREAKER_SECONDS": "0.3",
    "HOOKTIDE_DELIVERY_ATTEMPT_TIMEOUT_SECONDS": "5",
}


class Process(Protocol):
    """A running process: the part of `subprocess.Popen` that tests use."""

    @property
    def pid(self) -> int:
        """The process id."""
        ...

    @property
    def stdin(self) -> IO[bytes] | None:
        """Its standard input; closing it asks the process to stop."""
        ...

    def poll(self) -> int | None:
        """Return its exit code, negative for a signal, None while it runs."""
        ...

    def wait(self) -> int:
        """Wait for its end and return its exit code."""
        ...

    def terminate(self) -> None:
        """Send it SIGTERM."""
        ...


Spawn = Callable[[Sequence[str], Mapping[str, str], Path], Process]
"""Starts a command with an environment, and appends its output to a file."""


def spawn(command: Sequence[str], environ: Mapping[str, str], output: Path) -> Process:
    """Start a process through `subprocess`."""
    with output.open("ab") as log:
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=environ, cwd=ROOT)  # noqa: S603 - our own interpreter and module


@dataclass(slots=True)
class Service:
    """One service's process, and its addresses once it has been ready."""

    name: str
    process: Process | None = None
    listen: str = "127.0.0.1:0"
    admin: str = "127.0.0.1:0"
    starts: int = 0


@dataclass(slots=True)
class System:
    """All processes over one data directory."""

    data_dir: Path
    settings: dict[str, str]
    module: str = "services"
    """The module that runs: `services`, or a launcher of the tests that does more."""
    extra: Mapping[str, str] = field(default_factory=dict)
    """Further environment variables, not of Hooktide."""
    prefix: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """By service, a command to run it under, such as taskset."""
    spawn: Spawn = spawn
    """How processes are started."""
    reservations: Reservations = field(default_factory=Reservations)
    """The ports of the services; no other process gets them while the services are down."""
    services: dict[str, Service] = field(default_factory=lambda: {name: Service(name) for name in SERVICES})
    token: str = field(default_factory=lambda: "hts_" + secrets.token_hex(16))
    keys: BootstrapKeys | None = None
    http: aiohttp.ClientSession | None = None
    channels: dict[str, grpc.aio.Channel] = field(default_factory=dict)

    # Processes

    async def start(self, names: Sequence[str] = SERVICES) -> None:
        """Start services in order, each after the one before is ready; the first call makes the keys."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        key_file = self.data_dir / "secret.key"
        if not key_file.exists():
            key_file.write_text("k1:" + base64.b64encode(secrets.token_bytes(32)).decode())
        if self.keys is None and "subscription" in names:
            self.keys = bootstrap(read_settings(SubscriptionSettings, self.environment()))
        for service in self.services.values():
            addresses = self.reservations.settle(Addresses(service.listen, service.admin))
            service.listen, service.admin = addresses.listen, addresses.admin
        for name in names:
            self.launch(name)
            await self.ready(name)

    def environment(self) -> dict[str, str]:
        """Return the environment of every service."""
        # Keep compiled modules: otherwise every start compiles all of them again.
        left_out = ("HOOKTIDE_", "COV", "PYTHONDONTWRITEBYTECODE")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
        ours = {
            "HOOKTIDE_DATA_DIR": str(self.data_dir),
            "HOOKTIDE_SERVICE_TOKEN": self.token,
            "HOOKTIDE_SECRET_KEY_FILE": str(self.data_dir / "secret.key"),
            "HOOKTIDE_SINK_ALLOW": "http,127.0.0.0/8",
            "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "protos" / "src"))),
        }
        for name, service in self.services.items():
            ours[f"HOOKTIDE_{name.upper()}_LISTEN"] = service.listen
            ours[f"HOOKTIDE_{name.upper()}_ADMIN_LISTEN"] = service.admin
            if name != "gateway" and not service.listen.endswith(":0"):
                ours[f"HOOKTIDE_{name.upper()}_TARGET"] = service.listen
        return {**kept, **ours, **self.settings, **self.extra}

    def launch(self, name: str) -> None:
        """Start one service without waiting."""
        service = self.services[name]
        ready_file = self._ready_file(name)
        ready_file.unlink(missing_ok=True)
        command = [*self.prefix.get(name, ()), sys.executable, "-m", self.module, "serve", name, "--ready-file", str(ready_file)]
        service.process = self.spawn([*command, "--until-stdin-closes"], self.environment(), self.data_dir / f"{name}.log")
        service.starts += 1

    async def ready(self, name: str, within_s: float = PATIENCE_S) -> None:
        """Wait until a service is ready; if it does not become ready, fail with the end of its log."""
        service, ready_file = self.services[name], self._ready_file(name)
        end = time.monotonic() + within_s
        while not ready_file.exists():
            ended = service.process is None or service.process.poll() is not None
            given_up = ended or time.monotonic() > end
            assert not given_up, f"{name} is not ready ({ended=}):\n{self.log(name)[-3000:]}"
            await asyncio.sleep(0.01)
        addresses = json.loads(ready_file.read_text())
        service.listen, service.admin = addresses["listen"], addresses["admin"]

    def kill(self, name: str) -> None:
        """End a service at once, as a crash would."""
        process = self.services[name].process
        if process is not None:
            if process.poll() is None:
                os.kill(process.pid, signal.SIGKILL)
            self._reap(process)

    async def restart(self, name: str) -> None:
        """Start a service again at its addresses; wait until an existing channel to it is connected again."""
        self.launch(name)
        await self.ready(name)
        if name in self.channels:
            await asyncio.wait_for(self.channels[name].channel_ready(), PATIENCE_S)

    async def kill_and_restart(self, name: str) -> None:
        """Kill a service and start it again."""
        self.kill(name)
        await self.restart(name)

    async def found_again(self) -> None:
        """Wait until the gateway has found every service; it connects to a restarted service at most two seconds later."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                status, answer = await self.call("GET", "/readyz", self.first.admin)
                services = answer.get("services")
                if status == HTTPStatus.OK and isinstance(services, dict) and "away" not in services.values():
                    return
                await asyncio.sleep(0.05)

    async def terminate(self, name: str, within_s: float = PATIENCE_S) -> int:
        """Stop a service by SIGTERM; return its exit code."""
        process = self.services[name].process
        assert process is not None
        process.terminate()
        return await self.ended(name, within_s)

    async def ended(self, name: str, within_s: float = PATIENCE_S) -> int:
        """Wait until a service has ended by itself; return its exit code, negative for a signal."""
        process = self.services[name].process
        assert process is not None
        end = time.monotonic() + within_s
        while process.poll() is None:
            assert time.monotonic() < end, f"{name} did not stop in {within_s} s"
            await asyncio.sleep(0.01)
        return self._reap(process)

    def log(self, name: str) -> str:
        """Return a service's log."""
        return (self.data_dir / f"{name}.log").read_text(errors="replace")

    def running(self, name: str) -> bool:
        """Return whether a service's process is running."""
        process = self.services[name].process
        return process is not None and process.poll() is None

    async def close(self) -> None:
        """Stop everything."""
        if self.http is not None:
            await self.http.close()
        for channel in self.channels.values():
            await channel.close(None)
        for name in reversed(SERVICES):
            self.kill(name)
        self.reservations.release()

    def _ready_file(self, name: str) -> Path:
        return self.data_dir / f"{name}.ready"

    @staticmethod
    def _reap(process: Process) -> int:
        code = process.wait()
        if process.stdin is not None:
            process.stdin.close()
        return code

    # What tests talk to

    @property
    def first(self) -> BootstrapKeys:
        """The keys that the first start made."""
        assert self.keys is not None
        return self.keys

    async def call(self, method: str, path: str, key: str, body: object = None, **headers: str) -> tuple[int, dict[str, object]]:
        """Call the REST API; return status and JSON (empty if there is none)."""
        if self.http is None:
            self.http = aiohttp.ClientSession()
        url = f"http://{self.services['gateway'].listen}{path}"
        sent = {"authorization": f"Bearer {key}", **{name.replace("_", "-"): value for name, value in headers.items()}}
        async with self.http.request(method, url, json=body, headers=sent) as response:
            raw = await response.read()
            return response.status, json.loads(raw) if raw else {}

    def emitter(self, **options: float) -> hooktide.Emitter:
        """Return an emitter with the first emitter key."""
        return hooktide.Emitter(self.services["ingest"].listen, key=self.first.emitter, **options)  # type: ignore[arg-type]  # numbers all

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """The metadata that shows that a call comes from a service."""
        return service_metadata(self.token)

    def channel(self, name: str) -> grpc.aio.Channel:
        """Return the channel to a service."""
        if name not in self.channels:
            self.channels[name] = open_channel(self.services[name].listen)
        return self.channels[name]

    @property
    def deliveries(self) -> "delivery_pb2_grpc.DeliveryServiceAsyncStub":
        """A stub of the ledger's reading side."""
        return delivery_pb2_grpc.DeliveryServiceStub(self.channel("delivery"))

    @property
    def subscriptions(self) -> "subscription_pb2_grpc.SubscriptionServiceAsyncStub":
        """A stub of the registry."""
        return subscription_pb2_grpc.SubscriptionServiceStub(self.channel("subscription"))

    @property
    def catalogue(self) -> "catalogue_pb2_grpc.CatalogueServiceAsyncStub":
        """A stub of the catalogue."""
        return catalogue_pb2_grpc.CatalogueServiceStub(self.channel("subscription"))

    @property
    def ingest(self) -> "ingest_pb2_grpc.IngestServiceAsyncStub":
        """A stub for publishing."""
        return ingest_pb2_grpc.IngestServiceStub(self.channel("ingest"))

    @property
    def event_log(self) -> "event_log_pb2_grpc.EventLogServiceAsyncStub":
        """A stub of the log's reading side."""
        return event_log_pb2_grpc.EventLogServiceStub(self.channel("ingest"))


@contextlib.asynccontextmanager
async def running_system(data_dir: Path, settings: Mapping[str, str] | None = None, **options: object) -> AsyncIterator[System]:
    """Run all services; stop them at the end."""
    system = System(data_dir, {**QUICK, **(settings or {})}, **options)  # type: ignore[arg-type]  # the fields' own types
    try:
        await system.start()
        yield system
    finally:
        await system.close()
