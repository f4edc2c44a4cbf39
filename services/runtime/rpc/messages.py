"""Messages: parses the bytes of a request, or refuses them with what to change.

call_guard → [messages] → handler

Law 1: a compressed message is refused, and never decompressed. gRPC passes messages on as they came and does not report their encoding
(`channel_arguments.py`), so the first bytes show it.
"""

from collections.abc import Callable
from typing import TypeVar

from google.protobuf.message import DecodeError

from services.runtime.errors import Failure, Reason

_Message = TypeVar("_Message")

# No request begins so. The first byte of gzip (RFC 1952) is no valid tag of protobuf. That of zlib (RFC 1950, gRPC's "deflate") is the tag
# of a number in field 15, which no request has.
_GZIP = b"\x1f\x8b"
_ZLIB_START = b"\x78"
_ZLIB_DIVISOR = 31
_STARTS = frozenset({_GZIP[:1], _ZLIB_START})


def parsed_message(parse: Callable[[bytes], _Message], message: bytes) -> _Message:
    """Return a message parsed from bytes; raise `Failure` UNSUPPORTED_MEDIA_TYPE (compressed) or INVALID_ARGUMENT (not protobuf)."""
    if message[:1] in _STARTS and _is_compressed(message):
        raise Failure(
            Reason.UNSUPPORTED_MEDIA_TYPE, "This service does not accept compressed messages; send them with the encoding `identity`."
        )
    try:
        return parse(message)
    except DecodeError:
        text = "The message is not a valid request of this method; compare it with the .proto files."
        raise Failure(Reason.INVALID_ARGUMENT, text) from None


def _is_compressed(message: bytes) -> bool:
    return message[:2] == _GZIP or (message[:1] == _ZLIB_START and int.from_bytes(message[:2]) % _ZLIB_DIVISOR == 0)
