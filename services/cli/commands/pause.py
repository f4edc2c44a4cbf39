"""Pause: `hooktide subscriptions|consumers|system pause|resume` stop and start deliveries, by the REST API."""

import asyncio
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote

import typer

from services.cli.defaults import DATA_DIR, ApiKey, ApiUrl, AsJson, DataDir, api_key, api_url
from services.cli.errors import CommandError
from services.cli.json_text import checked_text
from services.cli.output import say, say_json
from services.cli.rest_client import rest_client
from services.cli.tls import CaFile

subscriptions = typer.Typer(no_args_is_help=True, help="Pause and resume subscriptions.")
consumers = typer.Typer(no_args_is_help=True, help="Pause and resume all subscriptions of a consumer (admin).")
system = typer.Typer(no_args_is_help=True, help="Pause and resume all deliveries (admin).")

SubscriptionId = Annotated[str, typer.Argument(metavar="ID", help="The subscription's id, sub_….")]
ConsumerId = Annotated[str, typer.Argument(metavar="ID", help="The consumer's id, con_….")]


@subscriptions.command("pause")
def pause_subscription(
    subscription_id: SubscriptionId,
    api: ApiUrl = "",
    key: ApiKey = "",
    ca: CaFile = None,
    data_dir: DataDir = DATA_DIR,
    *,
    as_json: AsJson = False,
) -> None:
    """Pause a subscription. Its events are kept as long as the event log keeps them."""
    answer = _post(f"/v1/subscriptions/{_part(subscription_id)}/pause", "consumer", api, key, ca, data_dir)
    _say_subscription(answer, as_json=as_json)


@subscriptions.command("resume")
def resume_subscription(
    subscription_id: SubscriptionId,
    api: ApiUrl = "",
    key: ApiKey = "",
    ca: CaFile = None,
    data_dir: DataDir = DATA_DIR,
    *,
    as_json: AsJson = False,
) -> None:
    """Resume a paused subscription, or enable one that was disabled."""
    answer = _post(f"/v1/subscriptions/{_part(subscription_id)}/resume", "consumer", api, key, ca, data_dir)
    _say_subscription(answer, as_json=as_json)


@consumers.command("pause")
def pause_consumer(
    consumer_id: ConsumerId,
    api: ApiUrl = "",
    key: ApiKey = "",
    ca: CaFile = None,
    data_dir: DataDir = DATA_DIR,
    *,
    as_json: AsJson = False,
) -> None:
    """Pause all subscriptions of a consumer. Their events are kept as long as the event log keeps them."""
    answer = _post(f"/v1/consumers/{_part(consumer_id)}/pause", "admin", api, key, ca, data_dir)
    _say_pause(f"the consumer {consumer_id} is", answer, as_json=as_json)


@consumers.command("resume")
def resume_consumer(
    consumer_id: ConsumerId,
    api: ApiUrl = "",
    key: ApiKey = "",
    ca: CaFile = None,
    data_dir: DataDir = DATA_DIR,
    *,
    as_json: AsJson = False,
) -> None:
    """Resume the subscriptions of a consumer; one that is paused by itself stays paused."""
    answer = _post(f"/v1/consumers/{_part(consumer_id)}/resume", "admin", api, key, ca, data_dir)
    _say_pause(f"the consumer {consumer_id} is", answer, as_json=as_json)


@system.command("pause")
def pause_system(api: ApiUrl = "", key: ApiKey = "", ca: CaFile = None, data_dir: DataDir = DATA_DIR, *, as_json: AsJson = False) -> None:
    """Pause all deliveries. New events wait in the event log as long as it keeps them."""
    _say_pause("all deliveries are", _post("/v1/system/pause", "admin", api, key, ca, data_dir), as_json=as_json)


@system.command("resume")
def resume_system(api: ApiUrl = "", key: ApiKey = "", ca: CaFile = None, data_dir: DataDir = DATA_DIR, *, as_json: AsJson = False) -> None:
    """Resume deliveries."""
    _say_pause("all deliveries are", _post("/v1/system/resume", "admin", api, key, ca, data_dir), as_json=as_json)


def _part(given: str) -> str:
    """Return an id as a part of a path."""
    if not given:
        raise CommandError("ID is empty; give the id, as `hooktide subscribe` or POST /v1/consumers returned it", code=2)
    return quote(checked_text("ID", given), safe="")


def _post(path: str, role: Literal["admin", "consumer"], api: str, key: str, ca: Path | None, data_dir: Path) -> dict[str, Any]:
    async def call() -> dict[str, Any]:
        async with rest_client(api_url(api, data_dir, ca), api_key(key, role, data_dir), ca) as client:
            return await client.call("POST", path, None)

    return asyncio.run(call())


def _say_subscription(answer: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        say_json(answer)
    else:
        reason = answer["state_reason"]
        say(f"the subscription {answer['id']} is {answer['state']}" + (f": {reason}" if reason else ""))


def _say_pause(subject: str, answer: dict[str, Any], *, as_json: bool) -> None:
    pause = answer["pause"]
    if as_json:
        say_json(answer)
    elif pause is None:
        say(f"{subject} not paused")
    else:
        say(f"{subject} paused since {pause['at']}; events accepted since then are kept at least until {pause['events_kept_until']}")
