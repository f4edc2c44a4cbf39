"""App: the `hooktide` command with its subcommands."""

import importlib.metadata
import io
import sys
from typing import Annotated

import typer

from services.cli.commands import pause, secrets
from services.cli.commands.demo import demo_command
from services.cli.commands.emit import emit
from services.cli.commands.health import health
from services.cli.commands.keys import keys_command
from services.cli.commands.receive import receive
from services.cli.commands.repair import repair
from services.cli.commands.serve import serve_command
from services.cli.commands.subscriptions import subscribe, unsubscribe
from services.cli.commands.up import up_command
from services.cli.composition import Composition
from services.cli.errors import CommandError
from services.cli.output import say
from services.runtime.service_process import StartError


def _say_version(wanted: bool) -> None:  # noqa: FBT001 - as typer calls it
    if wanted:
        say(f"hooktide {importlib.metadata.version('hooktide-server')}")
        raise typer.Exit


def make_app(composition: Composition) -> typer.Typer:
    """Return the command line for a composition of services."""
    app = typer.Typer(
        name="hooktide",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.callback()(_hooktide)
    for command in (
        up_command(composition),
        demo_command(composition),
        serve_command(composition),
        keys_command(composition),
        emit,
        subscribe,
        unsubscribe,
        receive,
        health,
        repair,
    ):
        app.command()(command)
    app.add_typer(secrets.app, name="secrets")
    app.add_typer(pause.subscriptions, name="subscriptions")
    app.add_typer(pause.consumers, name="consumers")
    app.add_typer(pause.system, name="system")
    return app


def _hooktide(
    *,
    version: Annotated[bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Show the version and exit.")] = False,
) -> None:
    """Event delivery for existing APIs: events in over gRPC, signed webhooks out."""


def run_app(composition: Composition) -> None:
    """Run the command line and exit: 0 if it succeeded, 1 if it failed, 2 if the command or a setting was wrong."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Text from others may not be UTF-8; it is shown with escapes.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        make_app(composition)()
    except CommandError as error:
        sys.stderr.write(f"hooktide: {error}\n")
        sys.exit(error.code)
    except StartError as error:
        sys.stderr.write(f"hooktide: {error}\n")
        sys.exit(2)
