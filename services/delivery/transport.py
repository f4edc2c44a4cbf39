"""Transport: the Protocol that every webhook leaves by.

attempt → [transport] → callback URL

Law 1: each `send` is answered exactly once, on the event loop, with what happened; it never raises.
Law 2: no redirect is followed, no answer is decompressed or read beyond its limit, and the address
dialled is checked, whatever name led to it.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

from services.delivery.model import Outcome

RESPONSE_BYTES_MAX = 64 * 1024
RESPONSE_BYTES_KEPT = 1024


class Request(NamedTuple):
    """A POST."""

    url: str
    headers: dict[str, str]
    body: bytes


class Answer(NamedTuple):
    """What came of it."""

    outcome: Outcome
    status: int
    """0 where there was none."""
    error: str
    """In a sentence; empty when delivered."""
    body: bytes
    """The beginning of the answer's body, of failures only."""
    retry_after: str
    """The header of that name; empty where there was none."""


class Transport(Protocol):
    """Sends requests."""

    def send(self, request: Request, done: Callable[[Answer], None]) -> None:
        """Begin to send; `done` is called once with the answer."""
        ...
