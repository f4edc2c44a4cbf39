"""Demo: `hooktide demo` shows all of Hooktide in 15 seconds, with a crash in the middle.

[emit] → ingest → delivery → [receive, verify]; the subscriptions are made through the gateway
"""

import asyncio
import contextlib
import json
import os
import tempfile
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import hooktide
import typer

from services.cli.composition import Composition
from services.cli.demo.shop_events import SOURCE, WANTED, ShopEvent, shop_events
from services.cli.demo.tally import Tally
from services.cli.demo.terminal_view import Shown, View, view
from services.cli.errors import CommandError
from services.cli.output import program, say, warn
from services.cli.rest_client import rest_client
from services.cli.supervise.service_environment import SINK_ALLOW_LOCAL, Ports
from services.cli.supervise.supervisor import Notice, Supervisor
from services.cli.webhook_receiver import Webhook, receiving
from services.runtime.background import until_one_ends
from services.runtime.logs import configure_logs
from services.runtime.service_process import ServiceProcess, run

EMITTING_S = 4.0
PAUSE_MAX_S = 0.05
SETTLING_S = 0.5
STALLED_S = 45.0
_WORKERS = 4
_ALARMS_SHOWN = 10
_ALARM_CHARS_MAX = 1000
_STOPPED = "stopped before it was finished"
_AFTERWARDS = """
Everything ran in a temporary directory, which is deleted now.
To continue, type these commands in three terminals, all in the same directory:

  1  {program} up
  2  {program} subscribe http://127.0.0.1:9000/ --type 'order.*'
     {program} receive --port 9000 --secret whsec_…    (as `subscribe` prints it)
  3  {program} emit order.created --source /shop --data '{{"id": 7}}'
"""


@dataclass(frozen=True, slots=True)
class _Subscriber:
    """A consumer of the demo, with its subscription at the receiver's path /<name>."""

    name: str
    consumer_id: str
    secret: str


def demo_command(composition: Composition) -> Callable[..., None]:
    """Return the command that shows the composition's services at work."""

    def demo(events: Annotated[int, typer.Option(min=2, max=100_000, metavar="N", help="The number of events to emit.")] = 200) -> None:
        """Run the whole flow once in a temporary directory, with a crash in the middle. It takes about 15 seconds."""
        tally = Tally()
        problems: list[str] = []
        alarms: deque[str] = deque(maxlen=_ALARMS_SHOWN)

        async def serve(process: ServiceProcess) -> None:
            configure_logs("demo", "warning")
            with view(tally, events) as shown:
                problem = await _unless_stopped(process, _demonstrate(composition, events, tally, shown, alarms))
                if problem:
                    problems.append(problem)

        code = run("demo", serve)
        if code == 0 and not problems and tally.is_perfect:
            say(_AFTERWARDS.format(program=program()))
            say(tally.last_line())
            return
        for line in () if _STOPPED in problems else alarms:
            warn(line[:_ALARM_CHARS_MAX])
        for problem in problems or ([] if code else [_shortcomings(tally)]):
            warn(f"demo: {problem}")
        raise typer.Exit(1)

    return demo


async def _unless_stopped(process: ServiceProcess, work: Coroutine[None, None, None]) -> str | None:
    """Do the work, or cancel it when a stop is asked for; return what went wrong, in one line."""
    try:
        is_done, _ = await until_one_ends(work, process.stopping.wait())
    except (CommandError, hooktide.EmitError) as error:
        return str(error)
    return None if is_done else _STOPPED


async def _demonstrate(composition: Composition, events: int, tally: Tally, shown: View, alarms: deque[str]) -> None:
    secrets: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory(prefix="hooktide-demo-", ignore_cleanup_errors=True) as folder:
        # The user's own settings are left out: the demo must touch no real data.
        environ = {name: value for name, value in os.environ.items() if not name.startswith("HOOKTIDE_")}
        environ |= {"HOOKTIDE_LOG_LEVEL": "warning", "HOOKTIDE_SINK_ALLOW": SINK_ALLOW_LOCAL}
        shown.step("starting the four services, each as its own process: subscription, ingest, delivery, gateway")
        began = time.monotonic()

        def notify(notice: Notice) -> None:
            if notice.kind == "log":
                alarms.append(notice.text)
            else:
                shown.step(f"supervisor: {notice.service} {notice.text}")

        supervisor = Supervisor(
            Path(folder), composition.bootstrap, ports=Ports({}, any_free=True), environ=environ, notify=notify, delivery_workers=1
        )
        async with supervisor, receiving(lambda path: secrets.get(path, ()), _receiver(tally, shown)) as url:
            shown.step(
                f"ready after {time.monotonic() - began:.1f} s; sinks may use http and this machine's addresses, as with `hooktide up`"
            )
            subscribers = [await _subscribe(supervisor, name, url, shown) for name in WANTED]
            secrets.update({f"/{subscriber.name.lower()}": [subscriber.secret] for subscriber in subscribers})
            async with _emitter(supervisor) as emitter:
                await _emit_all(emitter, shop_events(events), subscribers, tally, supervisor, shown)
            await _until_delivered(tally, shown)
            shown.step("stopping the services")


def _receiver(tally: Tally, shown: View) -> Callable[[Webhook], int]:
    names = {f"/{name.lower()}": name for name in WANTED}

    def receive(webhook: Webhook) -> int:
        subscriber = names.get(webhook.path, webhook.path)
        times = tally.arrive(subscriber, webhook.id, verified=webhook.verified)
        try:
            event = json.loads(webhook.body)
            event_type, subject = str(event["type"]), str(event.get("subject", ""))
        except (ValueError, KeyError, AttributeError, TypeError):
            event_type, subject = "not a CloudEvent", ""
        attempt = webhook.headers.get("hooktide-attempt", "?")
        shown.webhook(Shown(subscriber, event_type, subject, webhook.id, attempt, webhook.problem, times))
        return 204

    return receive


async def _subscribe(supervisor: Supervisor, name: str, url: str, shown: View) -> _Subscriber:
    """Make a consumer and a key as an administrator does, and subscribe with that key as a consumer does."""
    api = f"http://{supervisor.addresses('gateway').listen}"
    if supervisor.keys is None:
        raise CommandError("the demo's registry was not empty")
    async with rest_client(api, supervisor.keys.admin) as admin:
        consumer_id = str((await admin.call("POST", "/v1/consumers", {"name": name}))["id"])
        key = str((await admin.call("POST", "/v1/keys", {"role": "consumer", "consumer_id": consumer_id, "name": name}))["key"])
    async with rest_client(api, key) as consumer:
        subscription = {"sink": f"{url}/{name.lower()}", "protocol": "HTTP", "types": list(WANTED[name])}
        answer = await consumer.call("POST", "/v1/subscriptions", subscription)
    shown.step(f"{name} subscribes with the REST API to {', '.join(WANTED[name])}")
    return _Subscriber(name, consumer_id, str(answer["secret"]))


@contextlib.asynccontextmanager
async def _emitter(supervisor: Supervisor) -> AsyncIterator[hooktide.Emitter]:
    if supervisor.keys is None:
        raise CommandError("the demo's registry was not empty")
    async with hooktide.Emitter(supervisor.addresses("ingest").listen, key=supervisor.keys.emitter, timeout=30) as emitter:
        yield emitter


async def _emit_all(
    emitter: hooktide.Emitter, events: list[ShopEvent], subscribers: list[_Subscriber], tally: Tally, supervisor: Supervisor, shown: View
) -> None:
    """Emit the shop's events slowly enough to watch, and kill the delivery service half-way."""
    ids = {subscriber.name: subscriber.consumer_id for subscriber in subscribers}
    pause_s = min(PAUSE_MAX_S, EMITTING_S / len(events))
    queue = iter(enumerate(events))
    shown.step(f"the shop emits {len(events)} events over gRPC; each receipt means that the event is durable")

    async def work() -> None:
        for number, event in queue:
            if number == len(events) // 2:
                killed = supervisor.pid("delivery")
                supervisor.kill("delivery")
                shown.step(f"kill -9 {killed}: the delivery service is killed half-way, and the shop continues to emit")
            receipt = await emitter.emit(
                type=event.type,
                source=SOURCE,
                subject=event.subject,
                data=event.data,
                audience=None if event.audience is None else ids[event.audience],
            )
            tally.emit(event, receipt.event_id)
            await asyncio.sleep(pause_s * _WORKERS)

    async with asyncio.TaskGroup() as group:
        for _ in range(_WORKERS):
            group.create_task(work())
    shown.step(f"all {tally.emitted} events are durable; {tally.delivered} of {tally.due} expected deliveries have arrived")


async def _until_delivered(tally: Tally, shown: View) -> None:
    """Wait until all due deliveries have arrived, as long as more arrive; then wait a moment for deliveries that should not arrive."""
    delivered, since = tally.delivered, time.monotonic()
    while tally.lost and time.monotonic() - since < STALLED_S:
        await asyncio.sleep(0.05)
        if tally.delivered > delivered:
            if delivered * 4 // tally.due < tally.delivered * 4 // tally.due:
                shown.step(f"{tally.delivered} of {tally.due} delivered")
            delivered, since = tally.delivered, time.monotonic()
    if tally.lost:
        message = f"{tally.lost} of {tally.due} expected deliveries are missing, and no delivery arrived for {STALLED_S:g} s"
        raise CommandError(message)
    await asyncio.sleep(SETTLING_S)
    twice = (
        f"{tally.repeated} arrived twice because of the crash, with the same webhook-id"
        if tally.repeated
        else "no delivery arrived twice this time"
    )
    shown.step(f"all {tally.due} expected deliveries have arrived, and none is lost; {twice}")


def _shortcomings(tally: Tally) -> str:
    unverified = tally.delivered - tally.verified
    return f"{tally.lost} lost, {unverified} without a valid signature, {tally.misdirected} sent to the wrong subscriber"
