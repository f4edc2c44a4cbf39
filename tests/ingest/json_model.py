"""JSON model: a slow, exact reader of RFC 8259, character by character, with the refusals that ingest adds."""

import re

DEPTH_MAX = 254
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_HEX4 = re.compile(r"[0-9A-Fa-f]{4}")
_SPACE = " \t\n\r"
_ESCAPES = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_HIGH, _LOW = range(0xD800, 0xDC00), range(0xDC00, 0xE000)


class NotAcceptedError(Exception):
    """The text is not JSON, or it is JSON that receivers read differently."""


def is_acceptable(data: bytes) -> bool:
    """Return whether data is JSON with no name twice in an object, no lone surrogates, no infinite numbers and no deep nesting."""
    try:
        text = data.decode("utf-8", "strict")
        reading = _Reading(text)
        reading.value(0)
        reading.space()
    except (UnicodeDecodeError, NotAcceptedError):
        return False
    return reading.at == len(text)


class _Reading:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def space(self) -> None:
        while self.peek() and self.peek() in _SPACE:
            self.at += 1

    def peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def expect(self, literal: str) -> None:
        if not self.text.startswith(literal, self.at):
            raise NotAcceptedError
        self.at += len(literal)

    def value(self, depth: int) -> None:
        if depth > DEPTH_MAX:
            raise NotAcceptedError
        self.space()
        match self.peek():
            case "{":
                self.members(depth + 1)
            case "[":
                self.elements(depth + 1)
            case '"':
                self.string()
            case "t":
                self.expect("true")
            case "f":
                self.expect("false")
            case "n":
                self.expect("null")
            case _:
                self.number()

    def members(self, depth: int) -> None:
        self.expect("{")
        self.space()
        names = set[str]()
        if self.peek() == "}":
            self.nested(depth, "}")
            return
        while True:
            self.space()
            name = self.string()
            if name in names:
                raise NotAcceptedError
            names.add(name)
            self.space()
            self.expect(":")
            self.value(depth)
            self.space()
            if self.peek() == "}":
                self.nested(depth, "}")
                return
            self.expect(",")

    def elements(self, depth: int) -> None:
        self.expect("[")
        self.space()
        if self.peek() == "]":
            self.nested(depth, "]")
            return
        while True:
            self.value(depth)
            self.space()
            if self.peek() == "]":
                self.nested(depth, "]")
                return
            self.expect(",")

    def nested(self, depth: int, end: str) -> None:
        if depth > DEPTH_MAX:
            raise NotAcceptedError
        self.expect(end)

    def string(self) -> str:
        self.expect('"')
        found = []
        while (char := self.peek()) != '"':
            if not char or char < " ":
                raise NotAcceptedError
            self.at += 1
            found.append(self.escaped() if char == "\\" else char)
        self.at += 1
        return "".join(found)

    def escaped(self) -> str:
        kind = self.peek()
        self.at += 1
        if kind in _ESCAPES and kind:
            return _ESCAPES[kind]
        if kind != "u":
            raise NotAcceptedError
        unit = self.unit()
        if unit in _LOW:
            raise NotAcceptedError
        if unit not in _HIGH:
            return chr(unit)
        self.expect("\\u")
        low = self.unit()
        if low not in _LOW:
            raise NotAcceptedError
        return chr(0x10000 + (unit - 0xD800) * 0x400 + low - 0xDC00)

    def unit(self) -> int:
        match = _HEX4.match(self.text, self.at)
        if match is None:
            raise NotAcceptedError
        self.at += 4
        return int(match[0], 16)

    def number(self) -> None:
        match = _NUMBER.match(self.text, self.at)
        if match is None or float(match[0]) in {float("inf"), float("-inf")}:
            raise NotAcceptedError
        self.at += len(match[0])
