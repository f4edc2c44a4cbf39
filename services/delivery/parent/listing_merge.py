"""Listing merge: makes one page of deliveries out of the pages of several workers and ledger files.

front_server → [listing_merge]

Law 1: pure.
Law 2: a page ends where the first of its sources ends, so that no delivery is left out between two pages.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from hooktide.delivery.v1 import delivery_pb2 as pb


class SourcePage(NamedTuple):
    """A page of one worker or one file."""

    deliveries: Sequence[pb.Delivery]
    before_id: bytes | None
    """All deliveries of the source with ids from this one on are on the page; None: all that it has."""


def merged_page(sources: Iterable[SourcePage], limit: int) -> tuple[list[pb.Delivery], bytes | None]:
    """Return the newest deliveries, the newest first, and before which id the next page begins; None: this is the last page.

    Of a delivery that several sources have, the one of the last source counts.
    """
    sources = list(sources)
    bottom = max((each.before_id for each in sources if each.before_id is not None), default=None)
    found = {raw_id(delivery): delivery for each in sources for delivery in each.deliveries}
    ids = sorted((each for each in found if bottom is None or each >= bottom), reverse=True)
    if len(ids) > limit:
        return [found[each] for each in ids[:limit]], ids[limit - 1]
    return [found[each] for each in ids], bottom


def raw_id(delivery: pb.Delivery) -> bytes:
    """Return the 16 bytes behind a delivery's id."""
    return bytes.fromhex(delivery.id.removeprefix("dlv_"))
