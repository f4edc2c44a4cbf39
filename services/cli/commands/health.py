"""Health: `hooktide health` asks the services whether they are ready."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from services.cli.commands.serve import ServiceName
from services.cli.defaults import DATA_DIR, AsJson, DataDir, admin_url
from services.cli.output import say, say_json
from services.cli.readiness import READY, TIMEOUT_S, ServiceState, probing, service_state
from services.cli.supervise.service_environment import SERVICES


def health(
    services: Annotated[list[ServiceName] | None, typer.Argument(metavar="SERVICE", help="The services to check; all by default.")] = None,
    data_dir: DataDir = DATA_DIR,
    *,
    as_json: AsJson = False,
) -> None:
    """Show whether the services and delivery's workers are fully ready. The exit code is 0 if all services are, else 1."""
    states = asyncio.run(_states([str(name) for name in services or SERVICES], data_dir))
    is_ready = all(each.state == READY for each in states.values())
    if as_json:
        workers = {name: dict(each.workers) for name, each in states.items() if each.workers}
        said = {"ready": is_ready, "services": {name: each.state for name, each in states.items()}}
        say_json({**said, "workers": workers} if workers else said)
    else:
        for name, each in states.items():
            say(f"{name:<13} {each.state}")
            for worker, state in each.workers.items():
                say(f"  {worker:<11} {state}")
    raise typer.Exit(0 if is_ready else 1)


async def _states(services: list[str], data_dir: Path) -> dict[str, ServiceState]:
    urls = [admin_url(name, data_dir) for name in services]
    async with probing(TIMEOUT_S, tls=any(url.startswith("https:") for url in urls)) as session:
        states = await asyncio.gather(*(service_state(session, url) for url in urls))
    return dict(zip(services, states, strict=True))
