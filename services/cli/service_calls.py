"""Service calls: lets commands call a service directly, as other services do, with the service token."""

import os
from collections.abc import Awaitable
from pathlib import Path
from typing import TypeVar

import grpc
from google.protobuf.message import Message

from services.cli.defaults import address, speaks_tls
from services.cli.errors import CommandError
from services.cli.supervise.data_directory import DataDirectory
from services.cli.tls import grpc_tls
from services.runtime.configuration.secret_files import read_secret
from services.runtime.configuration.setting_types import checked_target
from services.runtime.errors import STATUS_DETAILS_KEY

_Answer = TypeVar("_Answer", bound=Message)


def service_target(service: str, given: str, data_dir: Path) -> str:
    """Return the target of a service: `given`, or its address as far as this machine knows."""
    try:
        return checked_target(given or address(service, "listen", data_dir))
    except ValueError as error:
        raise CommandError(f"--target: {error}", code=2) from error


def service_channel(service: str, target: str, ca: Path | None, data_dir: Path) -> grpc.aio.Channel:
    """Open a channel to a service, with TLS if `ca` is given or the service uses TLS; a Unix socket is never encrypted."""
    is_tls = not target.startswith("unix:") and (ca is not None or speaks_tls(service, data_dir))
    return grpc.aio.secure_channel(target, grpc_tls(ca)) if is_tls else grpc.aio.insecure_channel(target)


async def answered(service: str, target: str, call: Awaitable[_Answer]) -> _Answer:
    """Return the answer of a call; raise `CommandError` if the call fails."""
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        from_service = any(key == STATUS_DETAILS_KEY for key, _ in error.trailing_metadata() or ())
        if error.code() is grpc.StatusCode.UNAVAILABLE and not from_service:
            message = f"no answer from {target}; does the {service} service run there, and does it speak TLS (--ca)?"
        else:
            message = f"{target}: {error.details()}"
        raise CommandError(message) from error


def service_token(data_dir: Path) -> str:
    """Return the service token to send: the one from the settings, else the one of `hooktide up`."""
    given, file = os.environ.get("HOOKTIDE_SERVICE_TOKEN", ""), os.environ.get("HOOKTIDE_SERVICE_TOKEN_FILE", "")
    if not given:
        own = DataDirectory(data_dir).token_file
        if not file and not own.exists():
            message = f"no service token: give HOOKTIDE_SERVICE_TOKEN or HOOKTIDE_SERVICE_TOKEN_FILE (none in {data_dir})"
            raise CommandError(message, code=2)
        given = read_secret("HOOKTIDE_SERVICE_TOKEN_FILE", file or str(own))
    return given.replace("\n", ",").split(",")[0].strip()
