"""Serve: `hooktide serve` runs one service in this process."""

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from services.cli.composition import Composition
from services.runtime.service_process import run


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
        *,
        until_stdin_closes: Annotated[bool, typer.Option("--until-stdin-closes", help="Stop when standard input closes.")] = False,
    ) -> None:
        """Run one service, with its settings from the HOOKTIDE_* variables."""
        code = run(service, composition.services[service], ready_file=ready_file, until_stdin_closes=until_stdin_closes, reloads=True)
        raise typer.Exit(code)

    return serve
