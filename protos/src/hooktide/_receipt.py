"""Receipt: the proof that an event is durable."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Receipt:
    """The service's answer once an event is on disk.

    `event_id` is the event's id in Hooktide (``evt_…``) and the `webhook-id` of all its deliveries. `partition` (0 to 255) and `position`
    are its place in the event log. `duplicate` is true if the same event had been accepted before; the other fields are then those of the
    first receipt.
    """

    event_id: str
    partition: int
    position: int
    duplicate: bool
