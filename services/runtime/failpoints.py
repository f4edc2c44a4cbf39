"""Crash: names for the moments at which an end of the process is most telling. In the product nothing happens there.

Tests put a function in the place of `reached` that ends the process at one of them. Points stand around commits,
acknowledgements, attempts and flushes: one call for each of those, never one for each event.
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
"""All points, by the service's part that meets them."""


def _go_on(point: str) -> None:
    """Do nothing."""


reached: Callable[[str], None] = _go_on
"""Called with the name of each point as it is reached; look it up in the module at every call."""
