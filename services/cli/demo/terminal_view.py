"""Terminal view: shows the demo: a live display on a terminal, plain lines otherwise."""

import contextlib
import sys
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from services.cli.demo.shop_events import ACCOUNTING
from services.cli.demo.tally import Tally
from services.cli.output import say

_WEBHOOKS_SHOWN = 14
_STEPS_SHOWN = 9
# How many lines the frames of both panels, the counters and the cursor's line take.
_FURNITURE = 8


@dataclass(frozen=True, slots=True)
class Shown:
    """One webhook as it is shown. `problem` is None if its signature is good; `times` counts its arrivals."""

    subscriber: str
    event_type: str
    subject: str
    webhook_id: str
    attempt: str
    problem: str | None
    times: int

    @property
    def judged(self) -> str:
        """The result of verifying its signature, and whether it had arrived before."""
        verdict = "signature verified" if self.problem is None else f"SIGNATURE NOT VERIFIED: {self.problem}"
        return verdict if self.times == 1 else f"{verdict}, repeated: same webhook-id"


class View(Protocol):
    """The display of the demo's steps and webhooks."""

    def step(self, text: str) -> None:
        """Tell a step of the story."""
        ...

    def webhook(self, shown: Shown) -> None:
        """Show a webhook that has just come."""
        ...


class PlainView:
    """Prints one line for each step and each webhook."""

    def step(self, text: str) -> None:
        """Tell a step of the story."""
        say(f"{_clock()}  {text}")

    def webhook(self, shown: Shown) -> None:
        """Show a webhook that has just come."""
        say(
            f"{_clock()}    → {shown.subscriber:<10} {shown.event_type:<14} {shown.subject:<11} {shown.webhook_id}  "
            f"attempt {shown.attempt}  {shown.judged}"
        )


class LiveView:
    """A live display that is redrawn 12 times a second."""

    def __init__(self, tally: Tally, events: int, height: int = 100) -> None:
        """Take the tally, the number of events to come, and the terminal's height in lines, which limits the picture's height."""
        self._tally = tally
        self._events = events
        lines = max(height - _FURNITURE, 2)
        steps = min(_STEPS_SHOWN, max(lines // 3, 1))
        self._webhooks_shown = min(_WEBHOOKS_SHOWN, lines - steps)
        self._steps: deque[str] = deque(maxlen=steps)
        self._webhooks: deque[tuple[str, Shown]] = deque(maxlen=self._webhooks_shown)

    def step(self, text: str) -> None:
        """Tell a step of the story."""
        self._steps.append(f"{_clock()}  {text}")

    def webhook(self, shown: Shown) -> None:
        """Show a webhook that has just come."""
        self._webhooks.append((_clock(), shown))

    def picture(self) -> RenderableType:
        """Return the current picture."""
        webhooks = Table.grid(padding=(0, 2), expand=True)
        for _ in range(5):
            webhooks.add_column(no_wrap=True)
        webhooks.add_column(no_wrap=True, ratio=1)
        for clock, shown in list(self._webhooks):
            colour = "cyan" if shown.subscriber == ACCOUNTING else "magenta"
            verdict = Text("✔ " if shown.problem is None else "✘ ", "green" if shown.problem is None else "bold red")
            verdict.append(shown.judged, "yellow" if shown.times > 1 else "")
            webhooks.add_row(
                Text(clock, "dim"), Text(shown.subscriber, colour), shown.event_type, shown.subject, f"#{shown.attempt}", verdict
            )
        return Group(
            Panel(
                Text("\n".join(self._steps), no_wrap=True, overflow="ellipsis"), title="Hooktide", title_align="left", border_style="blue"
            ),
            Panel(webhooks, title="webhooks as they arrive", title_align="left", border_style="blue", height=self._webhooks_shown + 2),
            self._counters(),
        )

    def _counters(self) -> RenderableType:
        tally = self._tally
        counters = Table.grid(padding=(0, 2), expand=True)
        counters.add_column(no_wrap=True)
        counters.add_column(no_wrap=True, justify="right")
        counters.add_column(ratio=1)
        counters.add_row("emitted", f"{tally.emitted} of {self._events}", ProgressBar(self._events, tally.emitted))
        counters.add_row("delivered", f"{tally.delivered} of {tally.due} expected", ProgressBar(max(tally.due, 1), tally.delivered))
        counters.add_row("verified", str(tally.verified), Text(f"{tally.repeated} arrived twice" if tally.repeated else "", "yellow"))
        return counters


@contextlib.contextmanager
def view(tally: Tally, events: int) -> Iterator[View]:
    """Yield a `LiveView` if standard output is a terminal, else a `PlainView`."""
    if not sys.stdout.isatty():
        yield PlainView()
        return
    console = Console()
    picture = LiveView(tally, events, console.height)
    with Live(console=console, get_renderable=picture.picture, refresh_per_second=12):
        yield picture


def _clock() -> str:
    return f"{datetime.now().astimezone():%H:%M:%S}"
