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
"""The points of a service at work; the first word names the part of the service that reaches the point."""

CUT_POINTS: Final = (
    "ledger_cut.created",
    "ledger_cut.emptied",
    "ledger_cut.copying",
    "ledger_cut.copied",
    "ledger_cut.before_commit",
    "ledger_cut.committed",
    "ledger_cut.settling",
    "ledger_cut.settled",
)
"""The points of a start that divides the ledgers among another number of workers."""


def _go_on(point: str) -> None:
    """Do nothing."""


reached: Callable[[str], None] = _go_on
"""Called with the name of each point when it is reached. Callers look it up in the module at every call, so that a test can replace it."""
