"""Receipt: the proof that an event is durable."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Receipt:
    """What the service answers once an event is on disk.

    `event_id` is the event's own id (``evt_…``), the `webhook-id` of all its deliveries; `partition`
    (0 to 63) and `position` say where it stands in the event log. `duplicate` is true where the same
    event had been accepted before; the other fields are then the first one's.
    """

    event_id: str
    partition: int
    position: int
    duplicate: bool
