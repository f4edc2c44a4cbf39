"""`hooktide health`: whether the services take work."""

import asyncio
from pathlib import Path
from typing import Annotated

import aiohttp
import typer

from services.cli.defaults import DATA_DIR, AsJson, DataDir, address
from services.cli.output import say, say_json
from services.cli.plan import SERVICES
from services.cli.rest import reason_of
from services.cli.serve import ServiceName

_TIMEOUT_S = 3.0
READY = "ready"


def health(
    services: Annotated[list[ServiceName] | None, typer.Argument(metavar="SERVICE", help="Which ones; all by default.")] = None,
    data_dir: DataDir = DATA_DIR,
    *,
    as_json: AsJson = False,
) -> None:
    """Ask the services whether they do all their work. Exits with 0 if all do, else with 1."""
    states = asyncio.run(_states([str(name) for name in services or SERVICES], data_dir))
    if as_json:
        say_json({"ready": all(state == READY for state in states.values()), "services": states})
    else:
        for name, state in states.items():
            say(f"{name:<13} {state}")
    raise typer.Exit(0 if all(state == READY for state in states.values()) else 1)


async def _states(services: list[str], data_dir: Path) -> dict[str, str]:
    timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        states = await asyncio.gather(*(_state(session, address(name, "admin", data_dir)) for name in services))
    return dict(zip(services, states, strict=True))


async def _state(session: aiohttp.ClientSession, admin: str) -> str:
    try:
        async with session.get(f"http://{admin}/readyz") as response:
            body = await response.json()
            if response.status == 200 and "detail" not in body:  # noqa: PLR2004 - OK
                return READY
            return f"{body.get('status', 'not ready')}: {body.get('detail', response.status)}"
    except (aiohttp.ClientError, TimeoutError, ValueError, AttributeError) as error:
        return f"no answer at {admin}: {reason_of(error)}"
