"""Key invariants: an ordered subscription gets the events of a key in the order of their positions (L5).

L5: at each send of an event to an ordered subscription, every earlier event of the same key that the subscription must get has ended: its
end is in the ledger, or the running worker has heard of a success or of the last failure. An event that is set aside has ended, too. A
new worker repeats sends after a crash by the same law. So the first sends of a key are in the order of positions. An event is sent again
after a later one only if its end was lost in a crash.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

from services.eventlog.record import Record
from tests.simulation.endpoints import Key, Sent
from tests.simulation.event_log import position_in
from tests.simulation.invariants import Published, Version, judged


class OrderOfKeys:
    """The events of each key, and which of them have ended for which subscription."""

    def __init__(self, published: list[Published], sent: Mapping[Key, Sent]) -> None:
        """`published` has all events in order of position, and `sent` what the endpoints know of deliveries."""
        self._published = published
        self._sent = sent
        self._keys: dict[int, str] = {}
        self._ended: set[Key] = set()

    def published(self, record: Record, source: str, attributes: Mapping[str, str]) -> None:
        """Note an event; its key is its partition key, or else its source and subject. Others have none."""
        subject = attributes.get("subject")
        self._keys[record.position] = attributes.get("partitionkey") or (f"{source} {subject}" if subject else "")

    def overtakes(self, key: Key, versions: list[Version], now: float, is_recorded: Callable[[Key], bool]) -> bool:
        """Return whether an event is sent before an earlier one of its key has ended, to a subscription with these versions."""
        position = position_in(key[0])
        if not self._keys[position] or not all(each.wish is None or each.wish.is_ordered for each in versions):
            return False
        for event in self._published[: position - 1]:
            if self._keys[event.record.position] == self._keys[position]:
                earlier = (event.record.event_id, key[1])
                if not self._has_ended(earlier, is_recorded) and judged(replace(event, routed_by=now), versions, key[1])[0]:
                    return True
        return False

    def _has_ended(self, key: Key, is_recorded: Callable[[Key], bool]) -> bool:
        sent = self._sent.get(key)
        if key in self._ended or (sent is not None and not sent.under_way and (sent.heard or sent.given_up)):
            return True
        if is_recorded(key):
            self._ended.add(key)
        return key in self._ended
