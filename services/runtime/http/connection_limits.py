"""Connection limits: which new connection an HTTP listener accepts, and which open connection it closes in return.

accept → [connection_limits] → listener

On an open connection it is always either the server's turn (it answers a complete request) or the client's turn (it sends the next
request or the rest of a body, or reads an answer). At a limit, the connection that has waited longest for its client gives way: first
among those that never showed a valid API key, then among the others. A connection never gives way while it is the server's turn.

Law 1: pure; time (seconds of a monotonic clock) arrives as an argument.
Law 2: every operation on a connection takes constant time, however many are open.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

_NETWORKS_MAX = 10_000
# How many seconds' worth of new connections a network may use at once: a starting program opens its connections together.
_BURST_S = 2.0


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """How many connections a listener holds, and how long a client may take before it sends its next bytes, in seconds."""

    connections_max: int = 4096
    network_connections_max: int = 256
    """How many connections one client may hold: an IPv4 address, or the /64 of an IPv6 address."""
    network_connections_per_second: float = 200.0
    """On how many new connections a second one client may send bytes, on average; further connections are closed at their first byte."""
    headers_s: float = 10.0
    """The time from the connection to its first byte, and from the first byte of a request to the end of its headers."""
    idle_s: float = 75.0
    """The time from the end of an answer to the first byte of the next request."""


@dataclass(slots=True, eq=False)
class Connection:
    """An open connection. `network` is the network that it counts against, None if the limits per network do not apply to it."""

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
    """Connections that wait for their clients, in the order in which they began to wait."""

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


class _Rates:
    """A token bucket for each network: `per_second` tokens are added each second, and a full bucket holds those of `_BURST_S`."""

    def __init__(self, per_second: float) -> None:
        self._per_second = per_second
        # For each network, how many tokens were missing from a full bucket, and at what time.
        self._missing: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, network: str, now_s: float) -> bool:
        """Take a token; return whether there was one."""
        before, at_s = self._missing.pop(network, (0.0, now_s))
        missing = max(0.0, before - max(0.0, now_s - at_s) * self._per_second)
        is_there = missing + 1 <= self._per_second * _BURST_S
        while len(self._missing) >= _NETWORKS_MAX:
            self._missing.popitem(last=False)
        self._missing[network] = (missing + 1 if is_there else missing, now_s)
        return is_there


class Connections:
    """The open connections of one listener."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self._limits = limits
        self._count = 0
        self._awaiting = _Queue()
        self._networks: dict[str, _Network] = {}
        self._speaking = _Rates(limits.network_connections_per_second)

    def __len__(self) -> int:
        """Return how many connections are open."""
        return self._count

    def change(self, limits: ConnectionLimits) -> None:
        """Use other limits from now on; connections beyond the total limit are closed if they wait for their clients."""
        self._limits = limits
        self._speaking = _Rates(limits.network_connections_per_second)
        while self._count > limits.connections_max and self._make_room(self._awaiting):
            pass

    def admit(self, network: str | None) -> bool:
        """Return whether a new connection of a network (None: the limits per network do not apply) may be opened.

        At a limit, another connection gives way to make room. If no connection can give way, the result is False.
        """
        held = None if network is None else self._networks.get(network)
        if held is not None and held.count >= self._limits.network_connections_max and not self._make_room(held.awaiting):
            return False
        return self._count < self._limits.connections_max or self._make_room(self._awaiting)

    def opened(self, connection: Connection) -> None:
        """Count a connection that was admitted; it is the client's turn."""
        self._count += 1
        if connection.network is not None:
            self._networks.setdefault(connection.network, _Network()).count += 1
        self.await_client(connection)

    def closed(self, connection: Connection) -> None:
        """Forget a connection; further calls do nothing."""
        if not connection.is_open:
            return
        self.serve(connection)
        connection.is_open = False
        # The function refers back to the connection. Without this line only the garbage collector would free the two.
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

    def may_speak(self, network: str | None, now_s: float) -> bool:
        """Take a token for a network (None: exempt) that sends on one more new connection; return whether there was one."""
        return network is None or self._speaking.take(network, now_s)
