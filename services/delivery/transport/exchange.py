"""Flight: a request on its way, where it goes, and the limits that hold for all of them.

http → [flight] → pool → connection → callback URL
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from services.delivery.transport.protocol import Answer, Outcome, Request
from services.runtime.fair_semaphore import Share

if TYPE_CHECKING:
    from services.delivery.transport.pool import Host
    from services.delivery.transport.tls_contexts import Trust

_LOOKUPS = Share(permits=32, owner_permits=4)
ADDRESSES_DIALLED_MAX = 3
"""How many addresses of a name one request is tried at; the next request begins with the others."""
# RFC 9110, section 8.6: these say how long their body is, even where they have none.
_WITH_CONTENT = frozenset({"POST", "PUT", "PATCH"})


@dataclass(slots=True)
class Limits:
    """What holds for every request. It changes by `replace` alone, for requests that begin from then on."""

    timeout_s: float
    """In all, unless the request says otherwise."""
    connect_timeout_s: float
    """Until the connection stands, TLS and all addresses that are tried included."""
    first_byte_timeout_s: float
    """From the request's beginning until the answer's first byte; a request with a time limit of its own may use all of that."""
    connections_max: int
    """Open at once, idle ones included."""
    host_connections_max: int
    """Under way at once to one host and port."""
    names_kept_s: float = 15.0
    """How long a name's addresses are used before it is looked up again."""
    lookups: Share = _LOOKUPS
    """How many names are looked up at once; as many again of those that were found before."""
    contexts_max: int = 128
    """How many contexts of TLS are kept for what subscriptions trust or show beyond the usual."""

    def replace(self, other: "Limits") -> None:
        """Take over others; how long names are kept stays."""
        self.timeout_s, self.connect_timeout_s = other.timeout_s, other.connect_timeout_s
        self.first_byte_timeout_s = other.first_byte_timeout_s
        self.connections_max, self.host_connections_max = other.connections_max, other.host_connections_max
        self.lookups, self.contexts_max = other.lookups, other.contexts_max


@dataclass(slots=True)
class Tunnel:
    """The operator's proxy, and where it is reached."""

    port: int
    authorization: str
    """The value of `Proxy-Authorization`; empty: none."""
    addresses: tuple[str, ...] = ()
    """To be tried in this order."""


@dataclass(frozen=True, slots=True)
class Way:
    """How all requests leave."""

    why_not: Callable[[str], str | None]
    """Says why an address may not be dialled, None where it may."""
    tunnel: Tunnel | None = None
    """What then is all that is dialled; None: there is no proxy."""


class Target:
    """Where a URL leads; never changes."""

    __slots__ = ("addresses", "is_tls", "name", "opening", "origin", "port")

    def __init__(
        self, name: str, addresses: tuple[str, ...], port: int, *, is_tls: bool, host: str, path: str, origin: tuple[str, int]
    ) -> None:
        """`host` is as the `Host` header has it, `path` with its query as it is in the URL; `ValueError` where not printable."""
        self.name = name
        """The host's name; empty where the URL has an address."""
        self.addresses = addresses
        """That address; of a name they are looked up."""
        self.port = port
        self.is_tls = is_tls
        self.origin = origin
        """What connections are counted by."""
        if not f"{path}{host}".isprintable():
            message = "the URL has characters that cannot be sent"
            raise ValueError(message)
        self.opening = f" {path} HTTP/1.1\r\nHost: {host}\r\n"
        """How each request to it begins, behind its method."""


class Flight:
    """A request on its way."""

    __slots__ = ("addresses", "connect_by", "deadline", "done", "fresh", "host", "request", "target", "tried", "trust", "wire")

    def __init__(self, request: Request, done: Callable[[Answer], None], target: Target) -> None:
        """Begin with nothing of it sent."""
        self.request = request
        self.done = done
        self.target = target
        self.addresses = target.addresses
        """Where it may go to, in this order."""
        self.tried = 0
        """How many of them could not be reached."""
        self.trust: Trust | None = None
        """How its endpoint is verified; None without TLS."""
        self.fresh = False
        """Whether it is to go over a new connection, since a kept one broke under it."""
        self.host: Host
        """What it is counted under; known once it is in the pool."""
        self.connect_by: float
        """By the monotonic clock; known once a connection is dialled for it."""
        self.deadline: float
        """By the monotonic clock; known once it has begun."""
        self.wire: bytes
        """As it is sent; known once it has begun."""

    @property
    def addresses_left(self) -> int:
        """How many more addresses it may be tried at, the present one included."""
        return min(len(self.addresses), ADDRESSES_DIALLED_MAX) - self.tried


def wire_of(request: Request, target: Target) -> bytes:
    """Return a request as it is sent (RFC 9112); raises `ValueError` where a header cannot be sent as it stands."""
    body, method = request.body, request.method
    lines = [f"{name}: {value}" if value else f"{name}:" for name, value in request.headers.items()]
    # To look for each takes a sixth of what it takes to count them, as it would need once the lines' own ends are among them.
    text = "".join(lines)
    if "\n" in text or "\r" in text or "\0" in text or not method.isalpha():
        message = "a header of the request has a line break"
        raise ValueError(message)
    lines.append(f"Content-Length: {len(body)}\r\n\r\n" if body or method in _WITH_CONTENT else "\r\n")
    fields = "\r\n".join(lines)
    return f"{method}{target.opening}{fields}".encode("ascii") + body


def failed(outcome: Outcome, error: str) -> Answer:
    """Return the answer of a request that had none."""
    return Answer(outcome, 0, error, b"", "")
