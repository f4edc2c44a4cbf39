"""Connection limits: which connections of a listener are closed, so that no client takes the room of the others.

accept → [connection_limits] → call_guard → handler

gRPC limits how many connections a server keeps in all, and tells nobody which they are. The addresses of their sockets do: once a
second the process looks through its own file descriptors and shuts down what is beyond its share. gRPC then sees a peer that left.

Law 1: which connections go is decided by a pure function. Time (seconds of a monotonic clock) arrives as an argument.
Law 2: a connection that another service has shown its token on is never closed. One that has shown a valid key is closed only if its
own network has nothing else to close.
"""

import ctypes
import os
import socket
import struct
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import IntEnum
from urllib.parse import unquote

from services.runtime.authentication_throttle import network_of

GREETING_BYTES_MAX = 16 * 1024
"""How many bytes a connection may bring without a call: a TLS handshake with certificates, and HTTP/2's settings."""
# How long a call that has arrived may not be counted yet, and how much such calls may have brought: 16 times what is read ahead.
_UNCOUNTED_S, _UNCOUNTED_BYTES_MAX = 3.0, 4 * 1024 * 1024
_CROWDED_SHARE, _RELIEVED_SHARE = 0.9, 0.8
_OWN_DESCRIPTORS = "/dev/fd"
# Linux, asm-generic/socket.h: SO_ATTACH_FILTER takes a struct sock_fprog, here of one instruction, "return 0": keep no byte.
_ATTACH, _DETACH = 26, 27
# Linux, linux/tcp.h: where tcpi_bytes_received stands in struct tcp_info.
_RECEIVED_AT = 128
_RETURN_NOTHING = ctypes.create_string_buffer(struct.pack("=HBBI", 0x06, 0, 0, 0))
_DROP_ALL = struct.pack("@HP", 1, ctypes.addressof(_RETURN_NOTHING))


class Standing(IntEnum):
    """What a connection has shown so far."""

    UNKNOWN = 0
    KEY = 1
    SERVICE = 2


@dataclass(slots=True)
class Connection:
    """A client's connection."""

    host: str
    port: int
    network: str
    since_s: float
    exempt: bool = False
    """Whether its network has no limit of its own."""
    standing: Standing = Standing.UNKNOWN
    waiting: int = 0
    """How many of its refusals wait."""
    abandoned: int = 0
    """How many of its calls its peer left before it was known."""
    is_paused: bool = False
    """Whether nothing that its peer sends is taken."""
    bytes_max: int = GREETING_BYTES_MAX
    """How many bytes its peer may have sent while it is unknown; each call adds to them."""
    beyond_since_s: float | None = None
    """Since when its peer has sent more than that."""

    def is_overdue(self, received_bytes: int, now_s: float) -> bool:
        """Return whether its peer has sent too much for too long, or by far too much.

        A call that has arrived may wait for this process for a moment before it is counted.
        """
        if received_bytes <= self.bytes_max:
            self.beyond_since_s = None
            return False
        if self.beyond_since_s is None:
            self.beyond_since_s = now_s
        return now_s - self.beyond_since_s >= _UNCOUNTED_S or received_bytes > self.bytes_max + _UNCOUNTED_BYTES_MAX


def surplus(connections: Iterable[Connection], *, connections_max: int, per_network_max: int) -> list[Connection]:
    """Return the connections to close; `connections_max` limits all of them, `per_network_max` those of one network."""
    kept: list[Connection] = []
    networks: dict[str, list[Connection]] = {}
    for each in connections:
        if each.standing is Standing.SERVICE or each.exempt:
            kept.append(each)
        else:
            networks.setdefault(each.network, []).append(each)
    closed: list[Connection] = []
    for group in networks.values():
        group.sort(key=_order_of_leaving)
        over = max(0, len(group) - per_network_max)
        closed += group[:over]
        kept += group[over:]
    if len(kept) > connections_max * _CROWDED_SHARE:
        leaving = sorted((each for each in kept if each.standing is Standing.UNKNOWN), key=_order_of_leaving)
        closed += leaving[: len(kept) - int(connections_max * _RELIEVED_SHARE)]
    return closed


def _order_of_leaving(connection: Connection) -> tuple[Standing, float]:
    """Order strangers first, the oldest of them first; of those with a key the newest first, since the others are at work."""
    stranger = connection.standing is Standing.UNKNOWN
    return (connection.standing, connection.since_s if stranger else -connection.since_s)


class Connections:
    """The connections of one TCP listener."""

    def __init__(self, *, connections_max: int, per_network_max: int, is_exempt: Callable[[str], bool]) -> None:
        """Take the limits of `surplus`, and which addresses have no limit per network."""
        self._connections_max = connections_max
        self._per_network_max = per_network_max
        self._is_exempt = is_exempt
        self._known: dict[tuple[str, int], Connection] = {}
        self._by_peer: dict[str, Connection] = {}
        self._port = 0
        self._descriptors: dict[int, tuple[str, int]] = {}

    def change(self, *, per_network_max: int, is_exempt: Callable[[str], bool]) -> None:
        """Go by other limits from now on."""
        self._per_network_max, self._is_exempt = per_network_max, is_exempt
        for each in self._known.values():
            each.exempt = is_exempt(each.host)

    def of(self, peer: str, now_s: float) -> Connection | None:
        """Return the connection of a call's peer, as gRPC writes it (``ipv4:192.0.2.1:443``); None for a Unix socket."""
        known = self._by_peer.get(peer)
        if known is not None:
            return known
        place = _place_of(peer)
        if place is None:
            return None
        found = self._by_peer[peer] = self._at(place, now_s)
        return found

    def look(self, port: int, now_s: float) -> int:
        """Look which connections to `port` are open, close the surplus, and return how many there were."""
        self._port = port
        self._descriptors = dict(_accepted(port, _own_descriptors()))
        found = {place: self._at(place, now_s) for place in self._descriptors.values()}
        self._known = found
        self._by_peer = {peer: each for peer, each in self._by_peer.items() if found.get((each.host, each.port)) is each}
        for each in surplus(found.values(), connections_max=self._connections_max, per_network_max=self._per_network_max):
            self.close(each)
        for each in found.values():
            # gRPC keeps a header block that never ends, at eleven times its size, and no limit of its own applies before its end.
            if each.standing is Standing.UNKNOWN and not each.exempt and each.is_overdue(self.received_bytes(each), now_s):
                self.close(each)
        return len(found)

    def received_bytes(self, connection: Connection) -> int:
        """Return how many bytes a connection has brought so far; 0 where the system does not tell."""
        received = 0

        def ask(found: socket.socket) -> None:
            nonlocal received
            info = found.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _RECEIVED_AT + 8)
            received = int.from_bytes(info[_RECEIVED_AT:], sys.byteorder)

        if sys.platform == "linux":
            self._with_socket(connection, ask)
        return received

    def close(self, connection: Connection) -> bool:
        """Close a connection; return whether its socket was found."""
        return self._with_socket(connection, lambda found: found.shutdown(socket.SHUT_RDWR))

    def pause(self, connection: Connection) -> bool:
        """Take nothing more from a connection until `resume`; return whether that was possible.

        The system drops what arrives, and TCP sends it again later. So neither gRPC nor this process spends time on it, and the peer
        does not come back at once on a new connection, as it would if this one were closed. Linux alone can do it (socket(7)).
        """
        if not connection.is_paused and sys.platform == "linux":
            connection.is_paused = self._with_socket(connection, lambda found: found.setsockopt(socket.SOL_SOCKET, _ATTACH, _DROP_ALL))
        return connection.is_paused

    def resume(self, connection: Connection) -> None:
        """Take again what a connection sends."""
        if connection.is_paused:
            connection.is_paused = False
            self._with_socket(connection, lambda found: found.setsockopt(socket.SOL_SOCKET, _DETACH, 0))

    def _with_socket(self, connection: Connection, act: Callable[[socket.socket], None]) -> bool:
        """Act on a connection's socket; return whether it was found and the system let it happen."""
        place = (connection.host, connection.port)
        descriptor = self._descriptor_of(place)
        if descriptor is None:
            return False
        try:
            # A copy stays what it is, even if the descriptor's number is another socket's by now.
            with socket.socket(fileno=os.dup(descriptor)) as copy:
                if _normal(copy.getpeername()) == place:
                    act(copy)
                    return True
        except OSError:
            pass
        self._descriptors.pop(descriptor, None)
        return False

    def _descriptor_of(self, place: tuple[str, int]) -> int | None:
        """Return the descriptor of a connection's socket; of one that is new, by a look at the descriptors that are new."""
        for descriptor, known in self._descriptors.items():
            if known == place:
                return descriptor
        new = _accepted(self._port, _own_descriptors() - self._descriptors.keys())
        self._descriptors.update(new)
        return next((descriptor for descriptor, known in self._descriptors.items() if known == place), None)

    def _at(self, place: tuple[str, int], now_s: float) -> Connection:
        known = self._known.get(place)
        if known is None:
            host, port = place
            known = self._known[place] = Connection(host, port, network_of(host), now_s, self._is_exempt(host))
        return known


def _own_descriptors() -> set[int]:
    return {int(name) for name in os.listdir(_OWN_DESCRIPTORS)}  # noqa: PTH208 - only the numbers are of use


def _accepted(port: int, descriptors: Iterable[int]) -> Iterable[tuple[int, tuple[str, int]]]:
    """Return which descriptors are TCP connections to one of this process's ports, with the peers' hosts and ports."""
    for descriptor in descriptors:
        try:
            looked_at = socket.socket(fileno=descriptor)
        except OSError:  # another kind of file, or closed by now
            continue
        try:
            if looked_at.family in {socket.AF_INET, socket.AF_INET6} and looked_at.getsockname()[1] == port:
                yield descriptor, _normal(looked_at.getpeername())
        except OSError:  # it listens, or its peer has left
            continue
        finally:
            looked_at.detach()


def _normal(address: tuple[str, int] | tuple[str, int, int, int]) -> tuple[str, int]:
    return (address[0].partition("%")[0].removeprefix("::ffff:"), address[1])


def _place_of(peer: str) -> tuple[str, int] | None:
    kind, _, rest = unquote(peer).partition(":")
    host, _, port = rest.rpartition(":")
    if kind not in {"ipv4", "ipv6"} or not port.isdigit():
        return None
    return _normal((host.strip("[]"), int(port)))
