"""Failpoints: named points in the code at which a test can end the process. In production nothing happens there.

A test replaces `reached` with a function that ends the process at one of the points. Points stand around commits, acknowledgements,
attempts and flushes: one call for each of those, never one for each event.
"""

from collections.abc import Callable
from typing import Final

POINTS: Final = (
    "registry.opened",
    "registry.before_commit",
    "registry.after_commit",
    "log.opened",
    "log.before_commit",
    "log.after_commit",
    "ingest.before_ack",
    "ingest.after_ack",
    "ledger.opened",
    "ledger.leased",
    "ledger.before_commit",
    "ledger.after_commit",
    "delivery.taken_up",
    "delivery.resumed",
    "delivery.before_send",
    "delivery.after_send",
    "delivery.answered",
    "delivery.before_flush",
    "delivery.after_flush",
)
"""All points; the first word names the part of the service that reaches the point."""


def _go_on(point: str) -> None:
    """Do nothing."""


reached: Callable[[str], None] = _go_on
"""Called with the name of each point when it is reached. Callers look it up in the module at every call, so that a test can replace it."""
