"""Up: `hooktide up` runs all services on this machine, under one supervisor."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from services.cli.composition import Composition
from services.cli.defaults import DATA_DIR, AsJson, DataDir
from services.cli.errors import CommandError
from services.cli.output import warn
from services.cli.supervise.data_directory import Keys
from services.cli.supervise.service_environment import SERVICES, Ports, delivery_workers
from services.cli.supervise.supervisor import Supervisor
from services.cli.supervise.up_screen import Notices, say_running, say_running_json, say_starting
from services.runtime.background import until_one_ends
from services.runtime.child_process import usable_cores
from services.runtime.configuration.default_ports import LOOPBACK, PORTS
from services.runtime.logs import configure_logs
from services.runtime.service_process import ServiceProcess, StartError, run


def _port(help_text: str) -> object:
    return typer.Option(min=0, max=65535, metavar="PORT", help=help_text, show_default=False)


def up_command(composition: Composition) -> Callable[..., None]:
    """Return the command that supervises the composition's services."""

    def up(  # noqa: PLR0913 - one parameter for each option
        data_dir: DataDir = DATA_DIR,
        host: Annotated[
            str, typer.Option(metavar="HOST", help="The host name or address on which the REST API and the ingest service listen.")
        ] = LOOPBACK,
        port: Annotated[int | None, _port(f"The port of the REST API; by default {PORTS['gateway']}.")] = None,
        subscription_port: Annotated[
            int | None, _port(f"The port of the subscription service; by default {PORTS['subscription']}.")
        ] = None,
        ingest_port: Annotated[int | None, _port(f"The port of the ingest service; by default {PORTS['ingest']}.")] = None,
        delivery_port: Annotated[int | None, _port(f"The port of the delivery service; by default {PORTS['delivery']}.")] = None,
        processes: Annotated[
            str | None,
            typer.Option(
                metavar="auto|N",
                help="How many processes deliver: a number, or auto for one on each core but two, at least one. Overrides "
                "HOOKTIDE_DELIVERY_WORKERS; without both, auto.",
                show_default=False,
            ),
        ] = None,
        ready_file: Annotated[
            Path | None, typer.Option(metavar="FILE", help="Write this file when all services are ready: JSON with their addresses.")
        ] = None,
        *,
        free_ports: Annotated[bool, typer.Option("--free-ports", help="Use a free port for each port that is not given.")] = False,
        until_stdin_closes: Annotated[bool, typer.Option("--until-stdin-closes", help="Stop when standard input closes.")] = False,
        allow_local_sinks: Annotated[
            bool,
            typer.Option(
                "--allow-local-sinks",
                help="Let sinks use http and this machine's addresses. This is the default if only this machine can reach the API.",
            ),
        ] = False,
        log: Annotated[bool, typer.Option("--log", help="Show the services' warnings as log lines instead of sentences.")] = False,
        as_json: AsJson = False,
    ) -> None:
        """Run all four services on this machine until Ctrl-C. The first start creates the first API keys and the secret key."""
        given = {"gateway": port, "subscription": subscription_port, "ingest": ingest_port, "delivery": delivery_port}
        workers = _workers(processes)
        ports = Ports({name: number for name, number in given.items() if number is not None}, any_free=free_ports)

        async def serve(process: ServiceProcess) -> None:
            configure_logs("up", "warning")
            notices = Notices(raw=log or as_json)
            supervisor = Supervisor(
                data_dir,
                composition.bootstrap,
                host=host,
                ports=ports,
                notify=notices.tell,
                allow_local_sinks=allow_local_sinks,
                delivery_workers=workers,
            )
            await _supervise(process, supervisor, data_dir, free_ports=free_ports, as_json=as_json)

        raise typer.Exit(run("up", serve, ready_file=ready_file, until_stdin_closes=until_stdin_closes, reloads=True))

    return up


def _workers(processes: str | None) -> int | None:
    """Return how many processes deliver; None if the setting says it."""
    if processes is None:
        return None
    try:
        return delivery_workers(processes, usable_cores())
    except ValueError as error:
        raise CommandError(f"--processes={processes}: {error}", code=2) from None


async def _supervise(process: ServiceProcess, supervisor: Supervisor, data_dir: Path, *, free_ports: bool, as_json: bool) -> None:
    """Start the services, say where they listen, and stop them once the process is asked to stop."""
    if not as_json:
        say_starting()
    made = await _started(supervisor, free_ports=free_ports)
    try:
        if as_json:
            say_running_json(supervisor, made)
        else:
            say_running(supervisor, made, data_dir)
        process.ready(**{name: supervisor.addresses(name).listen for name in SERVICES})
        await _until_stopped(process, supervisor)
        warn("hooktide up: stopping; press Ctrl-C again to stop immediately")
    finally:
        await supervisor.stop()


async def _started(supervisor: Supervisor, *, free_ports: bool) -> Keys | None:
    try:
        return await supervisor.start()
    except StartError as error:
        if free_ports or "cannot listen on" not in str(error):
            raise
        message = f"{error} (--free-ports uses free ports)"
        raise StartError(message) from error


async def _until_stopped(process: ServiceProcess, supervisor: Supervisor) -> None:
    await until_one_ends(process.stopping.wait(), supervisor.run(), _hand_on_reloads(process, supervisor))


async def _hand_on_reloads(process: ServiceProcess, supervisor: Supervisor) -> None:
    while True:
        await process.reload_asked.wait()
        process.reload_asked.clear()
        supervisor.reload()
