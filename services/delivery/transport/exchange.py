"""Exchange: one request under way with its answer, its target, and the limits that hold for every request.

http → [exchange] → pool → connection → callback URL
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from services.delivery.transport.protocol import Answer, Outcome, Request
from services.runtime.fair_semaphore import Share

if TYPE_CHECKING:
    from services.delivery.transport.pool import Host
    from services.delivery.transport.tls_contexts import TlsContext

_LOOKUPS = Share(permits=32, owner_permits=4)
ADDRESSES_DIALLED_MAX = 3
"""How many addresses of a name one request tries; the next request begins with the others."""
# RFC 9110, section 8.6: requests with these methods carry `Content-Length` even if their body is empty.
_WITH_CONTENT = frozenset({"POST", "PUT", "PATCH"})


@dataclass(slots=True)
class Limits:
    """Limits for every request. Only `replace` changes them.

    A new `first_byte_timeout_s` also holds for requests under way; the other new limits hold for what begins afterwards.
    """

    timeout_s: float
    """For the whole request, unless the request has its own limit."""
    connect_timeout_s: float
    """Until a connection is ready, including TLS and all addresses that are tried."""
    first_byte_timeout_s: float
    """From the start of sending until the answer's first byte; does not apply to a request with its own time limit."""
    connections_max: int
    """Connections open at once, including idle ones."""
    host_connections_max: int
    """Requests under way at once to one host and port."""
    names_kept_s: float = 15.0
    """How long a name's addresses are used before it is looked up again."""
    lookups: Share = _LOOKUPS
    """How many names are looked up at once, in all and for one owner; the same number again for names that resolved before."""
    contexts_max: int = 128
    """How many TLS contexts are kept for subscriptions with their own authorities or client certificates."""

    def replace(self, other: "Limits") -> None:
        """Take over another object's limits, except `names_kept_s`."""
        self.timeout_s, self.connect_timeout_s = other.timeout_s, other.connect_timeout_s
        self.first_byte_timeout_s = other.first_byte_timeout_s
        self.connections_max, self.host_connections_max = other.connections_max, other.host_connections_max
        self.lookups, self.contexts_max = other.lookups, other.contexts_max


@dataclass(slots=True)
class Tunnel:
    """The operator's proxy and its addresses."""

    port: int
    authorization: str
    """The value of `Proxy-Authorization`; empty: no such header."""
    addresses: tuple[str, ...] = ()
    """In the order to try them."""


@dataclass(frozen=True, slots=True)
class DialPolicy:
    """How all connections are made."""

    why_not: Callable[[str], str | None]
    """Returns why an address may not be dialled; None if it may."""
    tunnel: Tunnel | None = None
    """The proxy, if there is one: then nothing else is dialled."""


class Target:
    """The parts of a URL that a request needs; immutable."""

    __slots__ = ("addresses", "is_tls", "name", "opening", "origin", "port")

    def __init__(
        self, name: str, addresses: tuple[str, ...], port: int, *, is_tls: bool, host: str, path: str, origin: tuple[str, int]
    ) -> None:
        """`host` is the `Host` header's value; `path` is the URL's path with its query, unchanged. `ValueError` if not printable."""
        self.name = name
        """The host's name; empty if the URL contains an address."""
        self.addresses = addresses
        """The URL's address; empty for a name, whose addresses are looked up."""
        self.port = port
        self.is_tls = is_tls
        self.origin = origin
        """The host and port by which connections are counted."""
        if not f"{path}{host}".isprintable():
            message = "the URL has characters that cannot be sent"
            raise ValueError(message)
        self.opening = f" {path} HTTP/1.1\r\nHost: {host}\r\n"
        """The start of each request to this target, after the method."""


class Exchange:
    """A request under way."""

    __slots__ = (
        "addresses",
        "connect_by",
        "deadline",
        "done",
        "fresh",
        "host",
        "request",
        "request_bytes",
        "target",
        "tls_context",
        "tried",
    )

    def __init__(self, request: Request, done: Callable[[Answer], None], target: Target) -> None:
        """Start with nothing sent."""
        self.request = request
        self.done = done
        self.target = target
        self.addresses = target.addresses
        """The addresses to try, in this order."""
        self.tried = 0
        """How many of the addresses could not be reached."""
        self.tls_context: TlsContext | None = None
        """The TLS context that verifies the endpoint; None without TLS."""
        self.fresh = False
        """Whether to use a new connection, because a kept one broke under this exchange."""
        self.host: Host
        """The pool's host that counts this exchange; set once the exchange is in the pool."""
        self.connect_by: float
        """The deadline to connect, on the event loop's monotonic clock; set once a connection is dialled for the exchange."""
        self.deadline: float
        """The deadline of the whole exchange, on the event loop's monotonic clock; set once it has begun."""
        self.request_bytes: bytes
        """The request's bytes; set once the exchange has begun."""

    @property
    def addresses_left(self) -> int:
        """How many addresses may still be tried, including the present one."""
        return min(len(self.addresses), ADDRESSES_DIALLED_MAX) - self.tried


def request_bytes(request: Request, target: Target) -> bytes:
    """Return a request's bytes (RFC 9112); raises `ValueError` if a header or the method cannot be sent."""
    body, method = request.body, request.method
    lines = [f"{name}: {value}" if value else f"{name}:" for name, value in request.headers.items()]
    # Check before the lines' own ends are added: a search takes a sixth of the time of a count, and afterwards a count would be needed.
    text = "".join(lines)
    if "\n" in text or "\r" in text or "\0" in text or not method.isalpha():
        message = "a header of the request has a line break"
        raise ValueError(message)
    lines.append(f"Content-Length: {len(body)}\r\n\r\n" if body or method in _WITH_CONTENT else "\r\n")
    fields = "\r\n".join(lines)
    return f"{method}{target.opening}{fields}".encode("ascii") + body


def failed(outcome: Outcome, error: str) -> Answer:
    """Return the answer of a request that got no response."""
    return Answer(outcome, 0, error, b"", "")
