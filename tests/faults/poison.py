"""Poison: kills a running delivery service whenever it routes an event of one type."""

import os
import signal
from pathlib import Path

from services.delivery.request.request_settings import Subscription
from services.delivery.subscriptions.router import Router

_FILE = "poison"


def poison(directory: Path, event_type: str) -> None:
    """Let each delivery service that starts from now on kill itself when it routes an event of this type."""
    (directory / _FILE).write_text(event_type)


def poison_routing(directory: Path) -> None:
    """Let this process kill itself when it routes an event of the type that `poison` has named, if it has named one."""
    if not (directory / _FILE).exists():
        return
    poisonous, match = (directory / _FILE).read_text(), Router.match

    def kill(router: Router, event_type: str, source: str, audience: str) -> tuple[Subscription, ...]:
        if event_type == poisonous:
            os.kill(os.getpid(), signal.SIGKILL)
        return match(router, event_type, source, audience)

    Router.match = kill  # type: ignore[method-assign, assignment]  # the process is a test's
