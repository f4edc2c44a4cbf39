"""Body fields: reads the members of a JSON object one by one, and reports every wrong member.

Law: a member that no code reads is unknown and refused. Null is the same as an absent member.
"""

from collections.abc import Mapping
from typing import TypeAlias, TypeVar

from google.protobuf.timestamp_pb2 import Timestamp

from gateway.problems import PROBLEMS_MAX, invalid_request
from gateway.strict_json import pointer_token
from gateway.translate.enum_words import one_of
from gateway.translate.timestamps import parse_time
from services.runtime.errors import FieldError

# Part of the public API's shape, but not supported by this version.
_NOT_YET = frozenset({"/filters"})
_NAME_SHOWN_MAX = 100
_Value = TypeVar("_Value")
# Needed because `object` is a method's name here.
_Anything: TypeAlias = object


class BodyFields:
    """The members of one object. Call `done` after reading all known members."""

    def __init__(self, members: Mapping[str, object], *, pointer: str = "", problems: list[FieldError] | None = None) -> None:
        """Take the object and its place in the body."""
        self._members = members
        self._pointer = pointer
        self._problems = [] if problems is None else problems
        self._known: dict[str, None] = {}
        self._inner: list[BodyFields] = []

    def has(self, name: str) -> bool:
        """Return whether the member is there, even as null."""
        return name in self._members

    def has_value(self, name: str) -> bool:
        """Return whether the member is there and not null."""
        return self._members.get(name) is not None

    def is_object(self, name: str) -> bool:
        """Return whether the member is an object."""
        return isinstance(self._members.get(name), dict)

    def is_text(self, name: str) -> bool:
        """Return whether the member is a text."""
        return isinstance(self._members.get(name), str)

    def ignore(self, *names: str) -> None:
        """Accept read-only members without reading them."""
        self._known |= dict.fromkeys(names)

    def problem(self, name: str, description: str, *, index: int | None = None) -> None:
        """Note that a member, or one item of it, is wrong."""
        if len(self._problems) >= PROBLEMS_MAX:
            return
        shown = pointer_token(name if len(name) <= _NAME_SHOWN_MAX else f"{name[:_NAME_SHOWN_MAX]}…")
        self._problems.append(FieldError(f"{self._pointer}/{shown}" + ("" if index is None else f"/{index}"), description))

    def text(self, name: str) -> str:
        """Return a text; "" if the member is absent."""
        return self._read(name, str, "must be a string") or ""

    def whole(self, name: str, largest: int) -> int | None:
        """Return a whole number from -`largest` to `largest`; None if the member is absent."""
        value = self._read(name, int, "must be a whole number")
        if isinstance(value, bool):
            self.problem(name, "must be a whole number")
            return None
        if value is not None and abs(value) > largest:
            self.problem(name, "is out of range")
            return None
        return value

    def number(self, name: str, largest: int) -> float | None:
        """Return a number from -`largest` to `largest`; None if the member is absent."""
        return self._number(name, self._read(name, object, ""), largest)

    def numbers(self, name: str, largest: int) -> list[float] | None:
        """Return a list of such numbers; None if the member is absent."""
        values: list[object] | None = self._read(name, list, "must be a list of numbers")
        if values is None:
            return None
        found = [self._number(name, value, largest, index) for index, value in enumerate(values)]
        return [value for value in found if value is not None]

    def wholes(self, name: str, largest: int) -> list[int]:
        """Return a list of whole numbers from -`largest` to `largest`; an empty list if the member is absent."""
        values: list[object] = self._read(name, list, "must be a list of whole numbers") or []
        found = []
        for index, value in enumerate(values):
            if not isinstance(value, int) or isinstance(value, bool):
                self.problem(name, "must be a whole number", index=index)
            elif abs(value) > largest:
                self.problem(name, "is out of range", index=index)
            else:
                found.append(value)
        return found

    def flag(self, name: str) -> bool:
        """Return true or false; false if the member is absent."""
        return self._read(name, bool, "must be true or false") or False

    def texts(self, name: str) -> list[str]:
        """Return a list of texts; an empty list if the member is absent."""
        values: list[object] = self._read(name, list, "must be a list of strings") or []
        for index, value in enumerate(values):
            if not isinstance(value, str):
                self.problem(name, "must be a string", index=index)
        return [value for value in values if isinstance(value, str)]

    def word(self, name: str, words: Mapping[str, _Value], default: _Value) -> _Value:
        """Return the value that a word stands for; `default` if the member is absent."""
        word = self._read(name, str, "must be a string")
        if word is None:
            return default
        if word not in words:
            self.problem(name, one_of(words))
            return default
        return words[word]

    def words(self, name: str, words: Mapping[str, _Value]) -> list[_Value]:
        """Return the values that the words of a list stand for; an empty list if the member is absent."""
        values: list[object] = self._read(name, list, "must be a list of strings") or []
        for index, value in enumerate(values):
            if not isinstance(value, str) or value not in words:
                self.problem(name, one_of(words), index=index)
        return [words[value] for value in values if isinstance(value, str) and value in words]

    def every_text(self) -> dict[str, str]:
        """Return all members of an object with arbitrary names; each value is a text. Members that are null are left out."""
        for name in self._members:
            self._read(name, str, "must be a string")
        return {name: value for name, value in self._members.items() if isinstance(value, str)}

    def time(self, name: str) -> Timestamp | None:
        """Return a time; None if the member is absent."""
        text = self._read(name, str, "must be a string")
        if text is None:
            return None
        try:
            return parse_time(text)
        except ValueError as error:
            self.problem(name, str(error))
            return None

    def object(self, name: str) -> "BodyFields":
        """Return the members of an inner object, empty if it is absent. This object's `done` covers them too."""
        members: dict[str, object] = self._read(name, dict, "must be an object") or {}
        inner = BodyFields(members, pointer=f"{self._pointer}/{name}", problems=self._problems)
        self._inner.append(inner)
        return inner

    def done(self) -> None:
        """Refuse the body if anything in it is wrong."""
        self._note_unknown()
        if self._problems:
            raise invalid_request(self._problems)

    def _note_unknown(self) -> None:
        for name in self._members:
            if name in self._known:
                continue
            if f"{self._pointer}/{name}" in _NOT_YET:
                self.problem(name, "is not supported by this version; leave it out")
            else:
                self.problem(name, f"is not a member of this object; its members are: {', '.join(self._known) or 'none'}")
        for inner in self._inner:
            inner._note_unknown()  # noqa: SLF001 - of the same class

    def _number(self, name: str, value: _Anything, largest: int, index: int | None = None) -> float | None:
        if value is None and index is None:
            return None
        if not isinstance(value, int | float) or isinstance(value, bool):
            self.problem(name, "must be a number", index=index)
            return None
        if abs(value) > largest:
            self.problem(name, "is out of range", index=index)
            return None
        return value

    def _read(self, name: str, kind: type[_Value], description: str) -> _Value | None:
        self._known[name] = None
        value = self._members.get(name)
        if value is None or isinstance(value, kind):
            return value
        self.problem(name, description)
        return None
