"""Defaults: the addresses of the services and the API key that the client commands use.

A flag has precedence, then its variable, then the values that `hooktide up` keeps in the data directory, then the default ports.
"""

import os
import re
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import typer

from services.cli.errors import CommandError
from services.cli.supervise.data_directory import DamagedKeysError, DataDirectory
from services.cli.supervise.service_environment import reachable
from services.runtime.configuration.default_ports import default_address, default_admin_address
from services.runtime.configuration.secret_files import read_secret
from services.runtime.configuration.setting_types import checked_target

DATA_DIR = Path("hooktide-data")
# Any text that a header can carry; the services decide whether it is a key.
_KEY = re.compile(r"[\x21-\x7e]+")

DataDir = Annotated[
    Path,
    typer.Option(
        "--data-dir", metavar="FOLDER", envvar="HOOKTIDE_DATA_DIR", help="The data directory of `hooktide up`.", show_default=True
    ),
]
ApiUrl = Annotated[
    str,
    typer.Option(
        "--api", metavar="URL", envvar="HOOKTIDE_API", help="The URL of the REST API; by default that of `hooktide up`.", show_default=False
    ),
]
ApiKey = Annotated[
    str,
    typer.Option(
        "--key",
        metavar="KEY",
        envvar="HOOKTIDE_KEY",
        help="The API key; by default the content of the file in HOOKTIDE_KEY_FILE, or else the key that `hooktide up` made.",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def api_url(given: str, data_dir: Path, ca: Path | None = None) -> str:
    """Return the URL of the REST API, without a slash at its end; by default https if `ca` is given or the gateway uses TLS."""
    scheme = "https" if ca is not None or speaks_tls("gateway", data_dir) else "http"
    url = given or f"{scheme}://{address('gateway', 'listen', data_dir)}"
    try:
        parts = urlsplit(url)
        is_url = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        is_url = False
    if not is_url:
        message = f"--api: {url!r} is not a valid URL; write for example http://{default_address('gateway')}"
        raise CommandError(message, code=2)
    return url.rstrip("/")


def ingest_target(given: str, data_dir: Path) -> str:
    """Return the target of the ingest service."""
    try:
        return checked_target(given or os.environ.get("HOOKTIDE_INGEST_TARGET", "") or address("ingest", "listen", data_dir))
    except ValueError as error:
        message = f"--target: {error}"
        raise CommandError(message, code=2) from error


def speaks_tls(service: str, data_dir: Path) -> bool:
    """Return whether a service listens with TLS, as far as this machine knows."""
    known = DataDirectory(data_dir).read_addresses().get(service)
    return known["scheme"] == "https" if known is not None else bool(os.environ.get(f"HOOKTIDE_{service.upper()}_TLS_CERT_FILE", ""))


def address(service: str, which: Literal["listen", "admin"], data_dir: Path) -> str:
    """Return a service's address, as far as this machine knows."""
    known = DataDirectory(data_dir).read_addresses().get(service)
    if known is not None:
        return known[which]
    variable = f"HOOKTIDE_{service.upper()}_{'LISTEN' if which == 'listen' else 'ADMIN_LISTEN'}"
    default = default_address(service) if which == "listen" else default_admin_address(service)
    return reachable(os.environ.get(variable, "") or default)


def admin_url(service: str, data_dir: Path) -> str:
    """Return a service's admin address with its scheme, as far as this machine knows."""
    known = DataDirectory(data_dir).read_addresses().get(service)
    if known is not None:
        return f"{known['admin_scheme']}://{known['admin']}"
    return f"{'https' if os.environ.get('HOOKTIDE_ADMIN_TLS_CERT_FILE', '') else 'http'}://{address(service, 'admin', data_dir)}"


def api_key(given: str, role: Literal["admin", "emitter", "consumer"], data_dir: Path) -> str:
    """Return an API key; raises `CommandError` if there is no key."""
    file = os.environ.get("HOOKTIDE_KEY_FILE", "")
    if not given and file:
        given = read_secret("HOOKTIDE_KEY_FILE", file)
    if given:
        if _KEY.fullmatch(given) is None:
            message = "--key: this is not a valid API key; an API key is hkt_ followed by letters and digits"
            raise CommandError(message, code=2)
        return given
    try:
        keys = DataDirectory(data_dir).read_keys()
    except DamagedKeysError as error:
        raise CommandError(str(error), code=2) from error
    if keys is None:
        ways = f"give --key, HOOKTIDE_KEY or HOOKTIDE_KEY_FILE with a key of the role {role}"
        message = f"there is no API key: {ways}, or run `hooktide up` first (data directory: {data_dir})"
        raise CommandError(message, code=2)
    return keys.of(role)
