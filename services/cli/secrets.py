"""`hooktide secrets`: what the secret keys are needed for."""

import asyncio
import os
from collections.abc import Awaitable
from pathlib import Path
from typing import Annotated

import grpc
import typer
from hooktide.subscription.v1 import access_pb2 as pb
from hooktide.subscription.v1 import access_pb2_grpc

from services.cli.data_directory import DataDirectory
from services.cli.defaults import DATA_DIR, AsJson, DataDir, address, speaks_tls
from services.cli.errors import CommandError
from services.cli.output import say, say_json
from services.cli.tls import CaFile, grpc_tls
from services.runtime.secret_files import read_secret
from services.runtime.setting_types import checked_target

_CALL_S = 10.0
_POLL_S = 1.0

app = typer.Typer(no_args_is_help=True, help="What the keys that encrypt secrets are needed for.")


@app.callback()
def _secrets() -> None:
    """What the keys that encrypt secrets are needed for."""


@app.command()
def reseal(
    target: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS", envvar="HOOKTIDE_SUBSCRIPTION_TARGET", help="The subscription service, host:port.", show_default=False
        ),
    ] = "",
    ca: CaFile = None,
    data_dir: DataDir = DATA_DIR,
    *,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until everything is resealed.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show how far the service has come in resealing stored secrets with the newest key of HOOKTIDE_SECRET_KEY.

    It does so by itself. Exits with 0 once the older keys may go, before that with 1. Needs the service token.
    """
    state = asyncio.run(_asked(target, ca, data_dir, wait=wait))
    if as_json:
        say_json(_as_json(state))
    else:
        _say(state)
    raise typer.Exit(1 if state.older else 0)


async def _asked(target: str, ca: Path | None, data_dir: Path, *, wait: bool) -> pb.GetResealingResponse:
    try:
        to = checked_target(target or address("subscription", "listen", data_dir))
    except ValueError as error:
        raise CommandError(f"--target: {error}", code=2) from error
    is_tls = ca is not None or speaks_tls("subscription", data_dir)
    async with grpc.aio.secure_channel(to, grpc_tls(ca)) if is_tls else grpc.aio.insecure_channel(to) as channel:
        stub, metadata = access_pb2_grpc.AccessServiceStub(channel), (("authorization", f"Bearer {_token(data_dir)}"),)
        while True:
            state = await _answer(to, stub.GetResealing(pb.GetResealingRequest(), metadata=metadata, timeout=_CALL_S))
            if not state.older or not wait:
                return state
            await asyncio.sleep(_POLL_S)


async def _answer(target: str, call: Awaitable[pb.GetResealingResponse]) -> pb.GetResealingResponse:
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.UNAVAILABLE:
            message = f"no answer from {target}; does the subscription service run there, and does it speak TLS (--ca)?"
        else:
            message = f"{target}: {error.details()}"
        raise CommandError(message) from error


def _token(data_dir: Path) -> str:
    """Return the service token that is sent: from the settings, else that of `hooktide up`."""
    given, file = os.environ.get("HOOKTIDE_SERVICE_TOKEN", ""), os.environ.get("HOOKTIDE_SERVICE_TOKEN_FILE", "")
    if not given:
        own = DataDirectory(data_dir).token_file
        if not file and not own.exists():
            message = f"no service token: give HOOKTIDE_SERVICE_TOKEN or HOOKTIDE_SERVICE_TOKEN_FILE (none in {data_dir})"
            raise CommandError(message, code=2)
        given = read_secret("HOOKTIDE_SERVICE_TOKEN_FILE", file or str(own))
    return given.replace("\n", ",").split(",")[0].strip()


def _as_json(state: pb.GetResealingResponse) -> dict[str, object]:
    return {
        "newest": state.newest_secret_key_id,
        "older": {
            use.secret_key_id: {
                "signing_secrets": use.signing_secrets,
                "credentials": use.credentials,
                "answers": use.answers,
                "api_keys": use.api_keys,
            }
            for use in state.older
        },
        "unneeded": list(state.unneeded_secret_key_ids),
    }


def _say(state: pb.GetResealingResponse) -> None:
    if not state.older:
        say(f"The key {state.newest_secret_key_id} seals everything.")
        if state.unneeded_secret_key_ids:
            say(f"May be removed from HOOKTIDE_SECRET_KEY: {', '.join(state.unneeded_secret_key_ids)}.")
        return
    say(f"The key {state.newest_secret_key_id} seals. Older keys are still needed, so keep them:")
    for use in state.older:
        parts = (
            f"{use.signing_secrets} signing secrets",
            f"{use.credentials} credentials",
            f"{use.answers} answers",
            f"{use.api_keys} API keys",
        )
        say(f"  {use.secret_key_id}  {', '.join(parts)}")
