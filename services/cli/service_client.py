"""Service client: calls a service directly, as other services do, with the service token.

commands/repair, commands/secrets → [service_client] ─gRPC─▶ delivery, subscription
"""

import contextlib
import os
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import grpc
from google.protobuf.message import Message
from hooktide.delivery.v1 import delivery_pb2, delivery_pb2_grpc
from hooktide.subscription.v1 import access_pb2, access_pb2_grpc

from services.cli.defaults import address, speaks_tls
from services.cli.errors import CommandError
from services.cli.supervise.data_directory import DataDirectory
from services.cli.tls import grpc_tls
from services.runtime.configuration.secret_files import read_secret
from services.runtime.configuration.setting_types import checked_target
from services.runtime.errors import STATUS_DETAILS_KEY

_Answer = TypeVar("_Answer", bound=Message)
# Counting the events of a large log takes long.
_REPAIR_S = 60.0
_RESEALING_S = 10.0


@dataclass(frozen=True, slots=True)
class Repair:
    """What a repair of routing did, or would do; the numbers count events and deliveries."""

    stopped: str
    """Why routing is stopped; empty if it is not."""
    routed_events: int
    repeated_events: int
    """Routed events that were routed before."""
    skipped_events: int
    """Events that were never routed and are left out."""
    lost_deliveries: int
    """Unfinished deliveries whose events are gone."""


@dataclass(frozen=True, slots=True)
class SecretKeyUse:
    """How many stored values still need a secret key."""

    secret_key_id: str
    signing_secrets: int
    credentials: int
    answers: int
    api_keys: int


@dataclass(frozen=True, slots=True)
class Resealing:
    """How far resealing with the newest secret key has come."""

    newest: str
    older: tuple[SecretKeyUse, ...]
    """The older keys that values still need."""
    unneeded: tuple[str, ...]
    """The ids of the older keys that no value needs."""


class ServiceClient:
    """Calls one service; every call raises `CommandError` if it fails."""

    def __init__(self, service: str, target: str, channel: grpc.aio.Channel, token: str) -> None:
        self._service = service
        self._target = target
        self._channel = channel
        self._metadata = (("authorization", f"Bearer {token}"),)

    async def repair_routing(self, from_time: datetime | None, *, dry_run: bool) -> Repair:
        """Make delivery route again where it has stopped, from a time on or from what it has not routed; or only say what that would do."""
        request = delivery_pb2.RepairRoutingRequest(dry_run=dry_run)
        if from_time is not None:
            request.from_time.FromDatetime(from_time)
        stub = delivery_pb2_grpc.DeliveryServiceStub(self._channel)
        done = await self._answer(stub.RepairRouting(request, metadata=self._metadata, timeout=_REPAIR_S))
        return Repair(done.stopped, done.routed_events, done.repeated_events, done.skipped_events, done.lost_deliveries)

    async def resealing(self) -> Resealing:
        """Return how far the registry has come in resealing stored secrets."""
        stub = access_pb2_grpc.AccessServiceStub(self._channel)
        state = await self._answer(stub.GetResealing(access_pb2.GetResealingRequest(), metadata=self._metadata, timeout=_RESEALING_S))
        older = [SecretKeyUse(use.secret_key_id, use.signing_secrets, use.credentials, use.answers, use.api_keys) for use in state.older]
        return Resealing(state.newest_secret_key_id, tuple(older), tuple(state.unneeded_secret_key_ids))

    async def _answer(self, call: Awaitable[_Answer]) -> _Answer:
        try:
            return await call
        except grpc.aio.AioRpcError as error:
            from_service = any(key == STATUS_DETAILS_KEY for key, _ in error.trailing_metadata() or ())
            if error.code() is grpc.StatusCode.UNAVAILABLE and not from_service:
                message = (
                    f"no answer from {self._target}; check that the {self._service} service runs there, and whether it needs TLS (--ca)"
                )
            else:
                message = f"{self._target}: {error.details()}"
            raise CommandError(message) from error


@contextlib.asynccontextmanager
async def service_client(service: str, target: str, ca: Path | None, data_dir: Path) -> AsyncIterator[ServiceClient]:
    """Open a connection to a service, with TLS if `ca` is given or the service uses TLS; a Unix socket is never encrypted."""
    is_tls = not target.startswith("unix:") and (ca is not None or speaks_tls(service, data_dir))
    channel = grpc.aio.secure_channel(target, grpc_tls(ca)) if is_tls else grpc.aio.insecure_channel(target)
    async with channel:
        yield ServiceClient(service, target, channel, _service_token(data_dir))


def service_target(service: str, given: str, data_dir: Path) -> str:
    """Return the target of a service: `given`, or its address as far as this machine knows."""
    try:
        return checked_target(given or address(service, "listen", data_dir))
    except ValueError as error:
        raise CommandError(f"--target: {error}", code=2) from error


def _service_token(data_dir: Path) -> str:
    """Return the service token to send: the one from the settings, else the one of `hooktide up`."""
    given, file = os.environ.get("HOOKTIDE_SERVICE_TOKEN", ""), os.environ.get("HOOKTIDE_SERVICE_TOKEN_FILE", "")
    if not given:
        own = DataDirectory(data_dir).token_file
        if not file and not own.exists():
            message = f"there is no service token in {data_dir}; set HOOKTIDE_SERVICE_TOKEN or HOOKTIDE_SERVICE_TOKEN_FILE"
            raise CommandError(message, code=2)
        given = read_secret("HOOKTIDE_SERVICE_TOKEN_FILE", file or str(own))
    return given.replace("\n", ",").split(",")[0].strip()
