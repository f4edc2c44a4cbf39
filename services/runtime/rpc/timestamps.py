"""Timestamps: reads the times that a caller names in a request."""

from google.protobuf.message import Message

from services.runtime.errors import invalid_field


def optional_ms(request: Message, field: str) -> int | None:
    """Return a `Timestamp` field in milliseconds since 1970, None if it is not set; raises `Failure` INVALID_ARGUMENT for no time."""
    if not request.HasField(field):
        return None
    try:
        time_ms: int = getattr(request, field).ToMilliseconds()
    except ValueError:
        raise invalid_field(field, "is not a time between the years 1 and 9999") from None
    return time_ms
