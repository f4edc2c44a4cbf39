"""Subscriptions: `hooktide subscribe` and `hooktide unsubscribe` make and delete a consumer's registration for events, by the REST API."""

import asyncio
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote, urlsplit

import typer

from services.cli.defaults import DATA_DIR, ApiKey, ApiUrl, AsJson, DataDir, api_key, api_url
from services.cli.errors import CommandError
from services.cli.json_text import checked_text
from services.cli.output import program, say, say_json, say_styled
from services.cli.rest_client import rest_client
from services.cli.tls import CaFile
from services.runtime.configuration.default_ports import LOOPBACK


def subscribe(  # noqa: PLR0913 - one parameter for each option
    sink: Annotated[str, typer.Argument(metavar="URL", help="The URL that is to receive the webhooks.")],
    types: Annotated[
        list[str] | None,
        typer.Option(
            "--type", metavar="TYPE", help="An event type, or a pattern such as order.*; may be repeated. By default all event types."
        ),
    ] = None,
    source: Annotated[str, typer.Option(metavar="URI", help="Only events from this source.", show_default=False)] = "",
    description: Annotated[str, typer.Option(metavar="TEXT", help="A description for people.", show_default=False)] = "",
    api: ApiUrl = "",
    key: ApiKey = "",
    ca: CaFile = None,
    data_dir: DataDir = DATA_DIR,
    *,
    start: Annotated[
        str,
        typer.Option(
            metavar="START",
            help="The first event: now, beginning (the oldest that the log has), or a time such as 2030-01-31T12:00:00Z. By default now.",
            show_default=False,
        ),
    ] = "",
    ordering: Annotated[
        str,
        typer.Option(metavar="ORDER", help="none, or key for the order of the log for each partition key.", show_default=False),
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Subscribe a URL to events, and print the subscription's id and its signing secret."""
    body: dict[str, Any] = {"sink": checked_text("URL", sink), "protocol": "HTTP"}
    if types:
        body["types"] = [checked_text("--type", event_type) for event_type in types]
    if source:
        body["source"] = checked_text("--source", source)
    config = {"description": description, "start": start, "ordering": ordering}
    if any(config.values()):
        body["config"] = {name: checked_text(f"--{name}", text) for name, text in config.items() if text}
    answer = asyncio.run(_call(api_url(api, data_dir, ca), ca, api_key(key, "consumer", data_dir), "POST", "/v1/subscriptions", body))
    if as_json:
        say_json(answer)
        return
    say(f"subscription  {answer['id']}")
    say(f"secret        {answer['secret']}")
    if port := _local_port(sink):
        say_styled((f"to receive    {program()} receive --port {port} --secret {answer['secret']}", "dim"))


def unsubscribe(
    subscription_id: Annotated[str, typer.Argument(metavar="ID", help="The subscription's id, sub_….")],
    api: ApiUrl = "",
    key: ApiKey = "",
    ca: CaFile = None,
    data_dir: DataDir = DATA_DIR,
    *,
    as_json: AsJson = False,
) -> None:
    """Delete a subscription. Its unfinished deliveries are cancelled."""
    if not subscription_id:
        message = "ID is empty; give the subscription's id, sub_…, as `hooktide subscribe` printed it"
        raise CommandError(message, code=2)
    path = f"/v1/subscriptions/{quote(checked_text('ID', subscription_id), safe='')}"
    asyncio.run(_call(api_url(api, data_dir, ca), ca, api_key(key, "consumer", data_dir), "DELETE", path, None))
    if as_json:
        say_json({"id": subscription_id, "deleted": True})
    else:
        say(f"the subscription {subscription_id} is deleted")


def _local_port(sink: str) -> int | None:
    """Return the port of a sink on this machine over plain http, None for any other sink."""
    parts = urlsplit(sink)
    return parts.port if parts.scheme == "http" and parts.hostname in {LOOPBACK, "localhost"} else None


async def _call(url: str, ca: Path | None, key: str, method: str, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
    async with rest_client(url, key, ca) as client:
        return await client.call(method, path, body)
