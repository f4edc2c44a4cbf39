"""Timestamps: translates times between RFC 3339 and the contract."""

import re

from google.protobuf.timestamp_pb2 import Timestamp

_TIME = re.compile(r"(\d{4}-\d\d-\d\d)[Tt](\d\d:\d\d:\d\d(?:\.\d{1,9})?)([Zz]|[+-](?:[01]\d|2[0-3]):[0-5]\d)", re.ASCII)


def parse_time(text: str) -> Timestamp:
    """Return the time in a text of RFC 3339; for any other text raise ValueError, which says what to write."""
    message = "must be a time as in RFC 3339, for example 2030-01-31T12:00:00Z"
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError(message)
    time = Timestamp()
    try:
        time.FromJsonString(f"{match[1]}T{match[2]}{match[3].upper()}")
    except ValueError:
        raise ValueError(message) from None
    return time


def time_json(time: Timestamp) -> str:
    """Return a time in RFC 3339, in UTC, with as many decimals as it needs (0, 3, 6 or 9)."""
    return time.ToJsonString()
