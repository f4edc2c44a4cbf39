"""Defaults: where the client commands find the services and a key, unless they are told.

A flag comes first, then its variable, then what `hooktide up` keeps in the data directory, then the default ports.
"""

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from services.cli.data_directory import DataDirectory
from services.cli.errors import CommandError
from services.cli.plan import ADMIN_PORTS, LOOPBACK, PORTS, reachable

DATA_DIR = Path("hooktide-data")

DataDir = Annotated[
    Path, typer.Option("--data-dir", envvar="HOOKTIDE_DATA_DIR", help="Where `hooktide up` keeps its data.", show_default=True)
]
ApiUrl = Annotated[
    str, typer.Option("--api", envvar="HOOKTIDE_API", help="The REST API; by default that of `hooktide up`.", show_default=False)
]
ApiKey = Annotated[
    str, typer.Option("--key", envvar="HOOKTIDE_KEY", help="The API key; by default the one `hooktide up` made.", show_default=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def api_url(given: str, data_dir: Path) -> str:
    """Return the URL of the REST API, without a slash at its end."""
    return (given or f"http://{address('gateway', 'listen', data_dir)}").rstrip("/")


def ingest_target(given: str, data_dir: Path) -> str:
    """Return where events are published."""
    return given or os.environ.get("HOOKTIDE_INGEST_TARGET", "") or address("ingest", "listen", data_dir)


def address(service: str, which: Literal["listen", "admin"], data_dir: Path) -> str:
    """Return where a service listens, as far as this machine knows."""
    known = DataDirectory(data_dir).read_addresses().get(service)
    if known is not None:
        return known[which]
    variable = f"HOOKTIDE_{service.upper()}_{'LISTEN' if which == 'listen' else 'ADMIN_LISTEN'}"
    ports = PORTS if which == "listen" else ADMIN_PORTS
    return reachable(os.environ.get(variable, "") or f"{LOOPBACK}:{ports[service]}")


def api_key(given: str, role: Literal["admin", "emitter", "consumer"], data_dir: Path) -> str:
    """Return an API key; raises `CommandError` where there is none."""
    if given:
        return given
    keys = DataDirectory(data_dir).read_keys()
    if keys is None:
        message = f"no API key: give --key or HOOKTIDE_KEY with a key of the role {role}, or run `hooktide up` first (data in {data_dir})"
        raise CommandError(message, code=2)
    return keys.of(role)
