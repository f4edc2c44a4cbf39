"""HTTP connections: which new connection an HTTP listener takes, and which open one gives way to it.

accept → [http_connections] → http_listener

An open connection is at every moment the server's turn (a complete request is being answered) or its client's (the next request, the
rest of a body, or the reading of an answer is awaited). At a limit the connection that has awaited its client for longest gives way:
first among those that never showed a valid API key, then among the others. What the server is working on never gives way.

Law 1: pure; time (seconds of a monotonic clock) arrives as an argument.
Law 2: every operation takes constant time, however many connections are open.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

_NETWORKS_MAX = 10_000
# How many seconds' worth of new connections a network may open at once: a program that starts opens its connections together.
_BURST_S = 10.0


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """How many connections a listener holds, and how long a client may take over its next move, in seconds."""

    connections_max: int = 4096
    network_connections_max: int = 256
    """How many connections one client may hold: an IPv4 address, or the /64 of an IPv6 address."""
    network_connections_per_second: float = 200.0
    """How many connections one client may open, on average; more are closed as soon as they are accepted."""
    headers_s: float = 10.0
    """From the connection, or from the first byte of a further request, to the end of the request's headers."""
    idle_s: float = 75.0
    """From the end of an answer to the first byte of the next request."""


@dataclass(slots=True, eq=False)
class Connection:
    """An open connection. `network` is whose it is, None if it is exempt from the limits for each network."""

    network: str | None
    give_way: Callable[[], None]
    """Closes the connection at once."""
    peer: str = ""
    """The address of the other end, empty for the peer of a Unix socket."""
    is_known: bool = False
    """Whether a request on it showed a valid API key."""
    is_open: bool = True


def _nothing() -> None:
    """Do nothing."""


class _Queue:
    """Connections that await their clients, in the order in which they began to."""

    def __init__(self) -> None:
        self._unknown: OrderedDict[Connection, None] = OrderedDict()
        self._known: OrderedDict[Connection, None] = OrderedDict()

    def add(self, connection: Connection) -> None:
        if connection.is_known:
            self._unknown.pop(connection, None)
            self._known[connection] = None
        else:
            self._unknown[connection] = None

    def discard(self, connection: Connection) -> None:
        self._unknown.pop(connection, None)
        self._known.pop(connection, None)

    def first(self) -> Connection | None:
        return next(iter(self._unknown), None) or next(iter(self._known), None)


@dataclass(slots=True)
class _Network:
    """The connections of one network."""

    count: int = 0
    awaiting: _Queue = field(default_factory=_Queue)


@dataclass(slots=True)
class _Rate:
    """A token bucket of new connections: how many tokens are missing from a full one, and when that was so."""

    missing: float
    at_s: float


class Connections:
    """The open connections of one listener."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self._limits = limits
        self._count = 0
        self._awaiting = _Queue()
        self._networks: dict[str, _Network] = {}
        self._rates: OrderedDict[str, _Rate] = OrderedDict()

    def __len__(self) -> int:
        """Return how many connections are open."""
        return self._count

    def change(self, limits: ConnectionLimits) -> None:
        """Put other limits into force; what is open beyond them gives way as far as it awaits its clients."""
        self._limits = limits
        while self._count > limits.connections_max and self._make_room(self._awaiting):
            pass

    def admit(self, network: str | None, now_s: float) -> bool:
        """Return whether a new connection of a network (None: exempt from the limits for each) may be opened.

        At a limit another connection gives way, so that there is room afterwards; if none can, the answer is no.
        """
        if network is not None:
            if not self._is_within_rate(network, now_s):
                return False
            held = self._networks.get(network)
            if held is not None and held.count >= self._limits.network_connections_max and not self._make_room(held.awaiting):
                return False
        return self._count < self._limits.connections_max or self._make_room(self._awaiting)

    def opened(self, connection: Connection) -> None:
        """Count a connection that was admitted; it is its client's turn."""
        self._count += 1
        if connection.network is not None:
            self._networks.setdefault(connection.network, _Network()).count += 1
        self.await_client(connection)

    def closed(self, connection: Connection) -> None:
        """Forget a connection, once or more often."""
        if not connection.is_open:
            return
        self.serve(connection)
        connection.is_open = False
        # The function leads back to the connection; without this only the collector of cycles would free the two.
        connection.give_way = _nothing
        self._count -= 1
        if connection.network is not None:
            held = self._networks[connection.network]
            held.count -= 1
            if not held.count:
                del self._networks[connection.network]

    def await_client(self, connection: Connection) -> None:
        """Note that it is the client's turn from now on."""
        if connection.is_open:
            for queue in self._queues(connection):
                queue.add(connection)

    def serve(self, connection: Connection) -> None:
        """Note that it is the server's turn from now on."""
        if connection.is_open:
            for queue in self._queues(connection):
                queue.discard(connection)

    def _queues(self, connection: Connection) -> tuple[_Queue, ...]:
        if connection.network is None:
            return (self._awaiting,)
        return self._awaiting, self._networks[connection.network].awaiting

    def _make_room(self, awaiting: _Queue) -> bool:
        oldest = awaiting.first()
        if oldest is None:
            return False
        give_way = oldest.give_way
        self.closed(oldest)
        give_way()
        return True

    def _is_within_rate(self, network: str, now_s: float) -> bool:
        """Take a token for a new connection; return whether there was one."""
        per_second = self._limits.network_connections_per_second
        rate = self._rates.pop(network, None)
        if rate is None:
            while len(self._rates) >= _NETWORKS_MAX:
                self._rates.popitem(last=False)
            rate = _Rate(0.0, now_s)
        missing = max(0.0, rate.missing - max(0.0, now_s - rate.at_s) * per_second)
        is_within = missing + 1 <= per_second * _BURST_S
        self._rates[network] = _Rate(missing + 1 if is_within else missing, now_s)
        return is_within
