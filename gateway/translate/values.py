"""Values: translates single values between REST and the contract: times, enumerations, pages."""

import re
from collections.abc import Iterable, Mapping
from typing import TypeVar

from google.protobuf.timestamp_pb2 import Timestamp

from gateway.problems import invalid
from services.runtime.errors import FieldError
from services.runtime.paging import PAGE_SIZE_MAX

# The parameters of every list.
PAGE_PARAMETERS = frozenset({"limit", "cursor"})
_TIME = re.compile(r"(\d{4}-\d\d-\d\d)[Tt](\d\d:\d\d:\d\d(?:\.\d{1,9})?)([Zz]|[+-](?:[01]\d|2[0-3]):[0-5]\d)", re.ASCII)
_LIMIT = re.compile(r"\d{1,9}", re.ASCII)
_Value = TypeVar("_Value")


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


def word_of(name: str, prefix: str) -> str:
    """Return the word of REST for the name of an enumeration's value: ``DELIVERY_STATE_PENDING`` is ``pending``."""
    return name.removeprefix(prefix).lower()


def one_of(words: Iterable[str]) -> str:
    """Return the advice to write one of the words."""
    return "must be " + " or ".join(f'"{word}"' for word in words)


class Query:
    """Reads the parameters of a query; the pipeline has already refused unknown ones."""

    def __init__(self, parameters: Mapping[str, str]) -> None:
        self._parameters = parameters
        self._problems: list[FieldError] = []

    def limit(self) -> int:
        """Return how many items a page may have; 0 if the caller leaves the size to the service."""
        text = self._parameters.get("limit")
        if text is None:
            return 0
        if _LIMIT.fullmatch(text) is None or not 1 <= int(text) <= PAGE_SIZE_MAX:
            self._problems.append(FieldError("?limit", f"must be a whole number from 1 to {PAGE_SIZE_MAX}"))
            return 0
        return int(text)

    def text(self, name: str) -> str:
        """Return a parameter's text; "" if it is absent."""
        return self._parameters.get(name, "")

    def word(self, name: str, words: Mapping[str, _Value], default: _Value) -> _Value:
        """Return the value that a word stands for; `default` if the parameter is absent."""
        word = self._parameters.get(name)
        if word is None:
            return default
        if word not in words:
            self._problems.append(FieldError(f"?{name}", one_of(words)))
            return default
        return words[word]

    def time(self, name: str) -> Timestamp | None:
        """Return a time; None if the parameter is absent."""
        text = self._parameters.get(name)
        if text is None:
            return None
        try:
            return parse_time(text)
        except ValueError as error:
            self._problems.append(FieldError(f"?{name}", str(error)))
            return None

    def done(self) -> None:
        """Refuse the query if anything in it is wrong."""
        if self._problems:
            raise invalid(self._problems)
