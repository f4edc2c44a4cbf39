"""Event count: how many events a message holds, counted before the message is parsed.

emitter → server → [event_count] → event_validation → event log

`PublishBatchRequest` and `PublishStreamRequest` hold events in field 1 and nothing else. The protobuf wire format writes each event as
the tag 0x0a, the length as a base-128 varint, and the bytes (protobuf.dev, "Encoding").

Law 1: pure; any bytes are taken. If bytes are malformed, the count ends there, and the parser refuses the message.
Law 2: a message never holds more events than are counted. Other fields are skipped; the fields of a group count as if they stood alone.
"""

_TAG = 0x0A
_EVENT = 1
_CONTINUED = 0x80
_VARINT_BITS_MAX = 70


def count_events(message: bytes, events_max: int) -> int:
    """Return how many events a message holds; the count stops at the first event beyond `events_max`."""
    count, at, end = 0, 0, len(message)
    try:
        while at < end and count <= events_max:
            # Nearly all messages consist of such fields: a tag of one byte, a length, and bytes.
            if message[at] == _TAG:
                length = message[at + 1]
                at += 2
                if length >= _CONTINUED:
                    length, at = _varint(message, at - 1)
                at += length
                count += 1
                continue
            tag, at = _varint(message, at)
            count += tag >> 3 == _EVENT
            at = _after_value(message, at, tag & 7)
    except IndexError:
        pass
    return count


def _after_value(message: bytes, at: int, wire_type: int) -> int:
    """Return where the value of an unusual field ends."""
    match wire_type:
        case 0:
            return _varint(message, at)[1]
        case 1:
            return at + 8
        case 2:
            length, at = _varint(message, at)
            return at + length
        case 5:
            return at + 4
        case _:  # the beginning or the end of a group
            return at


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """Return the number that begins at `at`, and the offset after its last byte; raise IndexError if the number has no end."""
    number = shift = 0
    while True:
        byte = message[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < _CONTINUED:
            return number, at
        shift += 7
        if shift >= _VARINT_BITS_MAX:
            raise IndexError
