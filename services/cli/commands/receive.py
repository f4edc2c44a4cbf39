"""Receive: `hooktide receive` runs a local receiver that verifies webhooks and shows them."""

import json
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from services.cli.cloudevent import read
from services.cli.defaults import AsJson
from services.cli.errors import CommandError
from services.cli.output import printable, say, say_json, say_styled
from services.cli.webhook_receiver import Answer, Webhook, key_problem, receiving
from services.runtime.configuration.default_ports import LOOPBACK
from services.runtime.logs import configure_logs
from services.runtime.service_process import ServiceProcess, run

_SHOWN_CHARS_MAX = 200
_KEYS_BYTES_MAX = 64 * 1024
_SECRETS_HELP = (
    "The subscription's signing secret, whsec_…, or its public key, whpk_…; @FILE reads a file with one key on each line. May be "
    "repeated, for example during a rotation."
)


def receive(
    port: Annotated[int, typer.Option(min=0, max=65535, metavar="PORT", help="The port to listen on; 0 for any free port.")] = 0,
    secrets: Annotated[
        list[str] | None,
        typer.Option("--secret", metavar="SECRET", envvar="HOOKTIDE_SIGNING_SECRET", help=_SECRETS_HELP, show_default=False),
    ] = None,
    status: Annotated[int, typer.Option(min=200, max=599, metavar="STATUS", help="The HTTP status to answer with.")] = 200,
    fail_first: Annotated[int, typer.Option(min=0, metavar="N", help="Answer the first N webhooks with the status 503.")] = 0,
    *,
    as_json: AsJson = False,
) -> None:
    """Receive webhooks on this machine, verify them and show them, until Ctrl-C."""
    keys = [key for given in secrets or () for key in _keys(given)]
    answer = _answer(status, fail_first, as_json=as_json)

    async def serve(process: ServiceProcess) -> None:
        configure_logs("receive", "warning")
        async with receiving(lambda _path: keys, answer, listen=f"{LOOPBACK}:{port}") as url:
            if as_json:
                say_json({"url": url})
            else:
                say(f"Receiving at {url}/ and all paths below it. Stop with Ctrl-C.")
            process.ready(listen=url)
            await process.stopping.wait()

    raise typer.Exit(run("receive", serve))


def _answer(status: int, fail_first: int, *, as_json: bool) -> Answer:
    failing = iter(range(fail_first))

    def answer(webhook: Webhook) -> int:
        code = status if next(failing, None) is None else 503
        (_show_json if as_json else _show)(webhook, code)
        return code

    return answer


def _keys(given: str) -> list[str]:
    """Return the keys that one `--secret` stands for; raises `CommandError` if there is no key, or one is invalid."""
    keys = [given]
    if given.startswith("@"):
        try:
            with Path(given[1:]).open("rb") as file:
                keys = file.read(_KEYS_BYTES_MAX).decode().split()
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            message = f"--secret: cannot read {given[1:]}: {why}"
            raise CommandError(message, code=2) from error
    if not keys:
        message = f"--secret: the file {given[1:]} is empty; write the secret that `hooktide subscribe` prints into it"
        raise CommandError(message, code=2)
    for key in keys:
        if problem := key_problem(key):
            message = f"--secret: {problem}; `hooktide subscribe` prints the secret"
            raise CommandError(message, code=2)
    return keys


def _show(webhook: Webhook, code: int) -> None:
    received = read(webhook.headers, webhook.body)
    event = received.event
    about = " ".join(str(event[name]) for name in ("type", "source", "subject") if name in event)
    if received.mode == "data_only":
        about = f"data only, {event.get('datacontenttype', 'without a content type')}"
    say_styled(
        (f"{datetime.now().astimezone():%H:%M:%S}", "dim"),
        printable(f"  {webhook.path}  {webhook.id or 'no webhook-id'}  "),
        (_shortened(printable(about)), "bold"),
        "  ",
        _judged(webhook),
        f"  answered {code}",
    )
    data = event.get("data", event.get("data_base64"))
    if data is not None:
        say(f"          {_shortened(printable(json.dumps(data, ensure_ascii=False)))}")


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARS_MAX else f"{text[:_SHOWN_CHARS_MAX]} …"


def _judged(webhook: Webhook) -> tuple[str, str]:
    """Return in words whether a webhook is verified, with a style."""
    if webhook.problem is not None:
        return f"NOT VERIFIED: {printable(webhook.problem)}", "bold red"
    if webhook.missing:
        return f"verified by {' and '.join(webhook.schemes)}; the webhook has no {' and no '.join(webhook.missing)} signature", "yellow"
    return "verified", "green"


def _show_json(webhook: Webhook, code: int) -> None:
    received = read(webhook.headers, webhook.body)
    say_json(
        {
            "id": webhook.id,
            "path": webhook.path,
            "verified": webhook.verified,
            "schemes": webhook.schemes,
            "missing": webhook.missing,
            "problem": webhook.problem,
            "answered": code,
            "attempt": webhook.headers.get("hooktide-attempt"),
            "subscription_id": webhook.headers.get("hooktide-subscription-id"),
            "content_mode": received.mode,
            "event": received.event,
        }
    )
