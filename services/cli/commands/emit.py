"""Emit: `hooktide emit` publishes one event."""

import asyncio
import dataclasses
import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import grpc
import hooktide
import typer

from services.cli.defaults import DATA_DIR, AsJson, DataDir, api_key, ingest_target, speaks_tls
from services.cli.errors import CommandError
from services.cli.json_text import checked_json, checked_text
from services.cli.output import say, say_json, warn
from services.cli.readiness import why_not_delivered
from services.cli.tls import CaFile, grpc_tls


def emit(  # noqa: PLR0913 - one parameter for each option
    event_type: Annotated[str, typer.Argument(metavar="TYPE", help="The event type, for example order.created.")],
    *,
    source: Annotated[str, typer.Option(metavar="URI", help="The event's source, a URI reference, for example /shop.")],
    subject: Annotated[str | None, typer.Option(metavar="TEXT", help="The event's subject, for example the id of an order.")] = None,
    data: Annotated[
        str | None, typer.Option(metavar="JSON", help="The event's data as JSON; @FILE reads a file, and - reads standard input.")
    ] = None,
    audience: Annotated[str | None, typer.Option(metavar="CONSUMER", help="The only consumer (con_…) that may receive the event.")] = None,
    event_id: Annotated[
        str | None,
        typer.Option(
            "--id",
            metavar="ID",
            help="The event's id, unique within its source; by default a new id. To repeat an event, give its --time too.",
            show_default=False,
        ),
    ] = None,
    time: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="The event's time, for example 2030-01-31T12:00:00Z; by default now.", show_default=False),
    ] = None,
    partitionkey: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT", help="The event's partition key: events with the same key go to the same partition of the log, in order."
        ),
    ] = None,
    target: Annotated[str, typer.Option(metavar="ADDRESS", help="The ingest service's address, host:port.", show_default=False)] = "",
    key: Annotated[
        str,
        typer.Option(
            metavar="KEY",
            envvar="HOOKTIDE_KEY",
            help="An API key of the role emitter; by default the key that `hooktide up` made.",
            show_default=False,
        ),
    ] = "",
    ca: CaFile = None,
    timeout: Annotated[float, typer.Option(min=0.1, metavar="SECONDS", help="How many seconds to try.")] = 10.0,
    data_dir: DataDir = DATA_DIR,
    as_json: AsJson = False,
) -> None:
    """Publish one event and print its receipt once it is durable."""
    attributes: dict[str, Any] = {
        "type": checked_text("TYPE", event_type),
        "source": checked_text("--source", source),
        "subject": None if subject is None else checked_text("--subject", subject),
        "time": None if time is None else checked_time("--time", time),
        "id": None if event_id is None else checked_text("--id", event_id),
        "partitionkey": None if partitionkey is None else checked_text("--partitionkey", partitionkey),
        "audience": None if audience is None else checked_text("--audience", audience),
    }
    if data is not None:
        # Sent as it was written, so that readers see the same digits.
        attributes |= {"data": checked_json("--data", _payload(data)), "datacontenttype": "application/json"}
    to = ingest_target(target, data_dir)
    emitter = hooktide.Emitter(
        to, key=api_key(key, "emitter", data_dir), credentials=_credentials(to, ca, data_dir), timeout=timeout, close_timeout=1
    )
    receipt = asyncio.run(_emit(to, emitter, attributes))
    if as_json:
        say_json(dataclasses.asdict(receipt))
    else:
        again = "; the event had been accepted before" if receipt.duplicate else ""
        say(f"{receipt.event_id} is durable in partition {receipt.partition} at position {receipt.position}{again}")
    if not target and (why := asyncio.run(why_not_delivered(data_dir))) is not None:
        warn(f"hooktide: the event waits in the log, because the delivery service is {why}")


async def _emit(target: str, emitter: hooktide.Emitter, attributes: dict[str, Any]) -> hooktide.Receipt:
    try:
        async with emitter:
            return await emitter.emit(**attributes)
    except hooktide.InvalidEvent as error:
        message = f"{error} ({error.reason})"
        raise CommandError(message) from error
    except hooktide.EmitError as error:
        message = f"{target}: {error} ({error.reason})"
        raise CommandError(message) from error


def _credentials(target: str, ca: Path | None, data_dir: Path) -> grpc.ChannelCredentials | None:
    """Return the TLS credentials, None without TLS; a Unix socket is never encrypted."""
    is_tls = not target.startswith("unix:") and (ca is not None or speaks_tls("ingest", data_dir))
    return grpc_tls(ca) if is_tls else None


def checked_time(option: str, text: str) -> datetime:
    """Return the time in an option; raise `CommandError` if it is not a time with a zone."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        message = f"{option}: {text!r} is not a time with a time zone; write for example 2030-01-31T12:00:00Z"
        raise CommandError(message, code=2)
    return time


def _payload(data: str) -> bytes:
    """Return the bytes that `--data` stands for."""
    try:
        if data == "-":
            return sys.stdin.buffer.read()
        if data.startswith("@"):
            return Path(data[1:]).read_bytes()
    except OSError as error:
        message = f"--data: cannot read {data[1:] or 'standard input'}: {error.strerror}"
        raise CommandError(message, code=2) from error
    return data.encode("utf-8", "surrogateescape")
