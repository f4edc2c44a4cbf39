"""Up screen: prints what `hooktide up` shows on a terminal: all addresses, the purpose of each key, and the next commands.

supervisor → [up_screen] → terminal
"""

import dataclasses
import shlex
import time
from datetime import datetime
from pathlib import Path

from services.cli.commands.keys import say_first_keys
from services.cli.defaults import DATA_DIR
from services.cli.output import Part, printable, program, say, say_json, say_styled, warn, warn_styled
from services.cli.supervise.data_directory import Keys
from services.cli.supervise.log_sentences import LogSentences
from services.cli.supervise.service_environment import SERVICES
from services.cli.supervise.supervisor import Notice, Supervisor

_NAMES = {"gateway": "REST API", "ingest": "ingest, gRPC", "subscription": "subscription, gRPC", "delivery": "delivery, gRPC"}
_COLOURS = {"ended": "yellow", "ready again": "green", "at work again": "green", "damaged": "red", "not ready": "red"}
_RECEIVER_PORT = 9000


class Notices:
    """Prints notices about the services to standard error: log lines as sentences or, with `raw`, unchanged."""

    def __init__(self, *, raw: bool) -> None:
        self._raw = raw
        self._sentences = LogSentences()

    def tell(self, notice: Notice) -> None:
        """Print one notice."""
        if notice.kind == "log" and self._raw:
            warn(f"{notice.service}: {notice.text}")
            return
        text: str | None = notice.text
        if notice.kind == "log":
            text = self._sentences.sentence(notice.text, time.monotonic())
        if text is not None:
            clock = f"{datetime.now().astimezone():%H:%M:%S}"
            warn_styled((clock, "dim"), f"  {notice.service or 'hooktide up'}: ", (printable(text), _COLOURS.get(notice.kind, "yellow")))


def say_starting() -> None:
    """Print that the services are being started."""
    say_styled(("Starting the subscription, ingest and delivery services and the gateway …", "dim"))


def say_running(supervisor: Supervisor, made: Keys | None, data_dir: Path) -> None:
    """Print all addresses, files and next commands; `made` are the first keys if they were made just now."""
    say_styled(("Hooktide is running.", "bold green"), " Stop it with Ctrl-C.")
    say("")
    for name in sorted(SERVICES, key=list(_NAMES).index):
        at = supervisor.addresses(name)
        listen = f"{supervisor.scheme(name)}://{at.listen}" if name == "gateway" else at.listen
        _say_row(
            _NAMES[name], (f"{listen:<25}", "bold cyan" if name in {"gateway", "ingest"} else ""), (f" admin http://{at.admin}", "dim")
        )
    if supervisor.delivery_workers > 1:
        _say_row("delivery workers", f"{supervisor.delivery_workers}, each with its share of the subscriptions and its own ledger file")
    _say_row("", ("the admin addresses serve /healthz, /readyz and /metrics", "dim"))
    _say_row("data", str(supervisor.directory.path))
    _say_row("logs", str(supervisor.directory.log_file("<service>")))
    may, otherwise = _webhooks(supervisor)
    _say_row("webhooks", may)
    if otherwise:
        _say_row("", (otherwise, "dim"))
    say("")
    _say_keys(supervisor, made)
    say("")
    _say_next(supervisor, data_dir)


def say_running_json(supervisor: Supervisor, made: Keys | None) -> None:
    """Print the addresses and the first keys for programs."""
    addresses = {name: dataclasses.asdict(supervisor.addresses(name)) for name in SERVICES}
    say_json(
        {
            "addresses": addresses,
            "data_dir": str(supervisor.directory.path),
            "delivery_workers": supervisor.delivery_workers,
            "first_keys": None if made is None else dataclasses.asdict(made),
        }
    )


def _say_row(name: str, *parts: Part) -> None:
    say_styled(f"  {name:<20}", *parts)


def _webhooks(supervisor: Supervisor) -> tuple[str, str]:
    """Return which sinks are allowed, and which setting changes that."""
    if supervisor.allows_local_sinks:
        return (
            "sinks may use http and this machine's addresses, so that you can try it out",
            "to allow only public https, set HOOKTIDE_SINK_ALLOW to an empty value",
        )
    if supervisor.is_reached_by_others and not supervisor.sink_allow:
        return (
            "sinks must be public https, because other machines can reach this API",
            "to allow http and this machine's addresses too, give --allow-local-sinks",
        )
    return f"sinks must be public https{f', or {supervisor.sink_allow}' if supervisor.sink_allow else ''}", "set by HOOKTIDE_SINK_ALLOW"


def _say_keys(supervisor: Supervisor, made: Keys | None) -> None:
    file = supervisor.directory.keys_file
    if made is not None:
        say("This is the first start. Hooktide cannot show these keys again; they are also in keys.json in the data directory:")
        say_first_keys(made)
    elif supervisor.keys is not None:
        say(f"The keys are in {file}.")
    else:
        say(f"No keys can be read from {file}; give the client commands an API key with --key or HOOKTIDE_KEY.")


def _say_next(supervisor: Supervisor, data_dir: Path) -> None:
    at = "" if data_dir == DATA_DIR else f" --data-dir {shlex.quote(str(supervisor.directory.path))}"
    command = program()
    # The certificate of a service on this machine comes from an authority that the commands must name.
    to_api, to_ingest = (" --ca FILE" if supervisor.scheme(name) == "https" else "" for name in ("gateway", "ingest"))
    local = supervisor.allows_local_sinks
    sink = f"http://127.0.0.1:{_RECEIVER_PORT}/" if local else "https://…"
    say("Next, in a second terminal" + (", in this folder:" if not at else ":"))
    say_styled((f"  {command} subscribe {sink} --type 'order.*'{at}{to_api}", "green"))
    if local:
        say_styled(
            (f"  {command} receive --port {_RECEIVER_PORT} --secret whsec_…", "green"),
            ("     with the secret that `subscribe` printed", "dim"),
        )
    say("and in a third terminal:")
    say_styled((f"  {command} emit order.created --source /shop --data '{{\"id\": 7}}'{at}{to_ingest}", "green"))
