"""Order key: the key of an event. A subscription that asks for order gets the events of one key in their order.

log record → [order_key: placement] → key_order

Law 1: pure. The same record always gives the same key.
Law 2: events with the same key lie in the same partition; the log has them in one order.
"""

import hashlib

from google.protobuf.message import DecodeError
from hooktide.event.v1 import event_pb2

from services.eventlog.placement import placement

_SIZE_BYTES = 12


def order_key(raw: bytes, event_id: str) -> bytes:
    """Return the key of an event, given as protobuf bytes: 12 bytes of a hash. If the bytes are no event, the id in the log is hashed."""
    try:
        event = event_pb2.CloudEvent.FromString(raw)
    except DecodeError:
        text = event_id
    else:
        text = placement(event.id, event.source, _text(event, "partitionkey"), _text(event, "subject"))
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_SIZE_BYTES).digest()


def _text(event: event_pb2.CloudEvent, name: str) -> str | None:
    # Looking up a missing name would add the name to the message.
    return event.attributes[name].ce_string if name in event.attributes else None
