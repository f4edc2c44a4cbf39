"""`hooktide receive`: a local receiver that verifies and shows."""

import json
from datetime import datetime
from typing import Annotated

import typer

from services.cli.defaults import AsJson
from services.cli.errors import CommandError
from services.cli.output import say, say_json
from services.cli.plan import LOOPBACK
from services.cli.receiver import Answer, Webhook, receiving, secret_bytes
from services.runtime.lifecycle import Lifecycle, run
from services.runtime.logs import configure_logs

_SHOWN_CHARS_MAX = 200


def receive(
    port: Annotated[int, typer.Option(min=0, max=65535, metavar="PORT", help="Where to listen; 0 for any free port.")] = 0,
    secrets: Annotated[
        list[str] | None,
        typer.Option("--secret", metavar="SECRET", help="The subscription's signing secret, whsec_…; may be repeated during a rotation."),
    ] = None,
    status: Annotated[int, typer.Option(min=200, max=599, metavar="STATUS", help="The HTTP status to answer with.")] = 200,
    fail_first: Annotated[int, typer.Option(min=0, metavar="N", help="Answer the first N webhooks with 503.")] = 0,
    *,
    as_json: AsJson = False,
) -> None:
    """Receive webhooks on this machine, verify and show them. Ctrl-C ends it."""
    for secret in secrets or ():
        try:
            secret_bytes(secret)
        except ValueError as error:
            message = f"--secret: {error}; `hooktide subscribe` prints it"
            raise CommandError(message, code=2) from error
    answer = _answer(status, fail_first, as_json=as_json)

    async def serve(lifecycle: Lifecycle) -> None:
        configure_logs("receive", "warning")
        async with receiving(lambda _path: secrets or (), answer, listen=f"{LOOPBACK}:{port}") as url:
            if as_json:
                say_json({"url": url})
            else:
                say(f"Receiving at {url}/ and any path below it. Ctrl-C stops.")
            lifecycle.ready(listen=url)
            await lifecycle.stopping.wait()

    raise typer.Exit(run("receive", serve))


def _answer(status: int, fail_first: int, *, as_json: bool) -> Answer:
    failing = iter(range(fail_first))

    def answer(webhook: Webhook) -> int:
        code = status if next(failing, None) is None else 503
        (_show_json if as_json else _show)(webhook, code)
        return code

    return answer


def _show(webhook: Webhook, code: int) -> None:
    event = _event(webhook)
    judged = "verified" if webhook.verified else f"NOT VERIFIED: {webhook.problem}"
    about = " ".join(str(event[name]) for name in ("type", "source", "subject") if name in event)
    say(f"{datetime.now().astimezone():%H:%M:%S}  {webhook.path}  {webhook.id or 'no webhook-id'}  {about}  {judged}  answered {code}")
    data = event.get("data", event.get("data_base64"))
    if data is not None:
        text = json.dumps(data, ensure_ascii=False)
        say(f"          {text if len(text) <= _SHOWN_CHARS_MAX else text[:_SHOWN_CHARS_MAX] + ' …'}")


def _show_json(webhook: Webhook, code: int) -> None:
    say_json(
        {
            "id": webhook.id,
            "path": webhook.path,
            "verified": webhook.verified,
            "problem": webhook.problem,
            "answered": code,
            "attempt": webhook.headers.get("hooktide-attempt"),
            "subscription_id": webhook.headers.get("hooktide-subscription-id"),
            "event": _event(webhook),
        }
    )


def _event(webhook: Webhook) -> dict[str, object]:
    """Return the CloudEvent in a body, empty where it is none."""
    try:
        event = json.loads(webhook.body)
    except (ValueError, RecursionError):
        return {}
    return event if isinstance(event, dict) else {}
