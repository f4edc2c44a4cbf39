"""Secrets: `hooktide secrets` shows which secret keys stored secrets still need."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from services.cli.defaults import DATA_DIR, AsJson, DataDir
from services.cli.output import say, say_json
from services.cli.service_client import Resealing, service_client, service_target
from services.cli.tls import CaFile

_POLL_S = 1.0

app = typer.Typer(no_args_is_help=True, help="Manage the keys that encrypt secrets.")


@app.callback()
def _secrets() -> None:
    """Manage the keys that encrypt secrets."""


@app.command()
def reseal(
    target: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS",
            envvar="HOOKTIDE_SUBSCRIPTION_TARGET",
            help="The subscription service's address, host:port.",
            show_default=False,
        ),
    ] = "",
    ca: CaFile = None,
    data_dir: DataDir = DATA_DIR,
    *,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until all stored secrets are encrypted with the newest key.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show how many stored secrets are still encrypted with an older key of HOOKTIDE_SECRET_KEY.

    The service encrypts them with the newest key by itself. The exit code is 0 once you can remove the older keys, before that 1. Needs
    the service token.
    """
    state = asyncio.run(_asked(target, ca, data_dir, wait=wait))
    if as_json:
        say_json(_as_json(state))
    else:
        _say(state)
    raise typer.Exit(1 if state.older else 0)


async def _asked(target: str, ca: Path | None, data_dir: Path, *, wait: bool) -> Resealing:
    to = service_target("subscription", target, data_dir)
    async with service_client("subscription", to, ca, data_dir) as client:
        while True:
            state = await client.resealing()
            if not state.older or not wait:
                return state
            await asyncio.sleep(_POLL_S)


def _as_json(state: Resealing) -> dict[str, object]:
    return {
        "newest": state.newest,
        "older": {
            use.secret_key_id: {
                "signing_secrets": use.signing_secrets,
                "credentials": use.credentials,
                "answers": use.answers,
                "api_keys": use.api_keys,
            }
            for use in state.older
        },
        "unneeded": list(state.unneeded),
    }


def _say(state: Resealing) -> None:
    if not state.older:
        say(f"All stored secrets are encrypted with the key {state.newest}.")
        if state.unneeded:
            say(f"You can remove these keys from HOOKTIDE_SECRET_KEY: {', '.join(state.unneeded)}.")
        return
    say(f"New secrets are encrypted with the key {state.newest}. Keep these older keys, which stored secrets still need:")
    for use in state.older:
        parts = (
            f"{use.signing_secrets} signing secrets",
            f"{use.credentials} credentials",
            f"{use.answers} stored answers",
            f"{use.api_keys} API keys",
        )
        say(f"  {use.secret_key_id}  {', '.join(parts)}")
