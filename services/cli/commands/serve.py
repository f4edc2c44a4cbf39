"""Serve: `hooktide serve` runs one service in this process."""

import os
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from services.cli.composition import Composition
from services.cli.errors import CommandError
from services.runtime.ids import WORKERS_MAX
from services.runtime.service_process import WorkerSeat, run


class ServiceName(StrEnum):
    """The services by name."""

    SUBSCRIPTION = "subscription"
    INGEST = "ingest"
    DELIVERY = "delivery"
    GATEWAY = "gateway"


def serve_command(composition: Composition) -> Callable[..., None]:
    """Return the command that runs one of the composition's services."""

    def serve(
        service: Annotated[ServiceName, typer.Argument(metavar="SERVICE", help="The service to run.")],
        ready_file: Annotated[
            Path | None,
            typer.Option(metavar="FILE", help="Write this file when the service is ready: JSON with the addresses that it listens on."),
        ] = None,
        workers: Annotated[
            int | None,
            typer.Option(
                metavar="N",
                min=1,
                max=WORKERS_MAX,
                help="With `delivery`: how many processes deliver. Overrides HOOKTIDE_DELIVERY_WORKERS.",
                show_default=False,
            ),
        ] = None,
        *,
        until_stdin_closes: Annotated[bool, typer.Option("--until-stdin-closes", help="Stop when standard input closes.")] = False,
        worker: Annotated[int | None, typer.Option(hidden=True)] = None,
        sockets: Annotated[Path | None, typer.Option(hidden=True)] = None,
    ) -> None:
        """Run one service, with its settings from the HOOKTIDE_* variables."""
        if workers is not None:
            if service is not ServiceName.DELIVERY:
                raise CommandError("--workers: only the delivery service has workers; leave it out", code=2)
            os.environ["HOOKTIDE_DELIVERY_WORKERS"] = str(workers)
        seat = None if worker is None or sockets is None else WorkerSeat(worker, sockets)
        code = run(
            service,
            composition.services[service],
            ready_file=ready_file,
            until_stdin_closes=until_stdin_closes,
            reloads=True,
            seat=seat,
        )
        raise typer.Exit(code)

    return serve
