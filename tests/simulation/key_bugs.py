"""Key bugs: mistakes in the order of keys that are easy to make, each put back into the real code; see `bugs.py`."""

from collections.abc import Callable, Collection, Iterable
from typing import Any

from services.delivery.dispatch.key_order import KeyOrder
from services.delivery.dispatch.ordered_lanes import OrderedLanes
from services.delivery.ledger.rows import WaitingRow
from services.delivery.model import Delivery

Replace = Callable[[Any, str, Any], None]
"""Replaces an attribute of an object, as `setattr` does, or `pytest.MonkeyPatch.setattr` until its test ends."""


def key_goes_on_after_a_failure(patch: Replace) -> None:
    """A delivery whose attempt has failed holds back nothing: the next one of its key starts before the retry."""
    patch(OrderedLanes, "failed", OrderedLanes.ended)


def rows_of_keys_not_known_after_a_restart(patch: Replace) -> None:
    """After a restart, a lane goes on as if an earlier process had left it no rows."""
    load = KeyOrder.load

    def load_nothing(order: KeyOrder, rows: Iterable[WaitingRow], elsewhere: Collection[bytes]) -> list[Delivery]:
        del rows
        return load(order, [], elsewhere)

    patch(KeyOrder, "load", load_nothing)


KEY_BUGS = {
    key_goes_on_after_a_failure: 1,
    rows_of_keys_not_known_after_a_restart: 1,
}
"""Each bug, and a seed that is known to catch it."""
