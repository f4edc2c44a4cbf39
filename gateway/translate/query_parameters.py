"""Query parameters: reads the parameters of a query one by one, and reports every wrong one."""

import re
from collections.abc import Mapping
from typing import TypeVar

from google.protobuf.timestamp_pb2 import Timestamp

from gateway.problems import invalid_request
from gateway.translate.enum_words import one_of
from gateway.translate.timestamps import parse_time
from services.runtime.errors import FieldError
from services.runtime.paging import PAGE_SIZE_MAX

# The parameters of every list.
PAGE_PARAMETERS = frozenset({"limit", "cursor"})
_LIMIT = re.compile(r"\d{1,9}", re.ASCII)
_Value = TypeVar("_Value")


class QueryParameters:
    """The parameters of one query; the pipeline has already refused unknown ones. Call `done` after reading them."""

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
            raise invalid_request(self._problems)
