"""Connection limits: which connections of a listener are closed, so that no client takes the capacity of the others.

accept → [connection_limits] → call_guard → handler

gRPC limits how many connections a server keeps in all, and offers no list of them. The process finds them by the addresses of their
sockets: each time that `call_guard` asks, it looks through its own file descriptors and shuts down the connections beyond a client's
share. gRPC then sees a peer that left.

Law 1: a pure function decides which connections are surplus. Time (seconds of a monotonic clock) arrives as an argument.
Law 2: a connection on which another service has shown its token is never closed. A connection that has shown a valid key is closed only
if its own network has more connections than its limit and no others to close.
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
"""How many bytes a connection may send without a call: a TLS handshake with certificates, and HTTP/2's settings."""
# How long a call may have arrived without being counted, and how many bytes such calls may have sent: 16 times the read-ahead.
_UNCOUNTED_S, _UNCOUNTED_BYTES_MAX = 3.0, 4 * 1024 * 1024
_CROWDED_SHARE, _RELIEVED_SHARE = 0.9, 0.8
_OWN_DESCRIPTORS = "/dev/fd"
# Linux, asm-generic/socket.h: SO_ATTACH_FILTER takes a struct sock_fprog. Ours has one instruction, "return 0": keep no byte.
_ATTACH, _DETACH = 26, 27
# Linux, linux/tcp.h: the offset of tcpi_bytes_received in struct tcp_info.
_RECEIVED_AT = 128
_RETURN_NOTHING = ctypes.create_string_buffer(struct.pack("=HBBI", 0x06, 0, 0, 0))
_DROP_ALL = struct.pack("@HP", 1, ctypes.addressof(_RETURN_NOTHING))


class Standing(IntEnum):
    """The best credential that a connection has shown so far."""

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
    """Whether the limits per network do not apply to it."""
    standing: Standing = Standing.UNKNOWN
    waiting: int = 0
    """How many of its refusals wait."""
    abandoned: int = 0
    """How many of its calls the peer has left before its credentials were checked."""
    is_paused: bool = False
    """Whether the system drops everything that its peer sends."""
    bytes_max: int = GREETING_BYTES_MAX
    """How many bytes its peer may have sent while it is unknown; each call raises this limit."""
    beyond_since_s: float | None = None
    """Since when its peer has been above that limit."""

    def is_overdue(self, received_bytes: int, now_s: float) -> bool:
        """Return whether its peer has been above its limit for too long, or is far above it.

        A short excess is permitted, since a call that has arrived may wait a moment before this process counts it.
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
    """Order unknown connections first, oldest first. Then those with a key, newest first, since the older ones are at work."""
    stranger = connection.standing is Standing.UNKNOWN
    return (connection.standing, connection.since_s if stranger else -connection.since_s)


class Connections:
    """The connections of one TCP listener."""

    def __init__(self, *, connections_max: int, per_network_max: int, is_exempt: Callable[[str], bool]) -> None:
        """Take the limits of `surplus`, and a function that returns whether an address has no limit per network."""
        self._connections_max = connections_max
        self._per_network_max = per_network_max
        self._is_exempt = is_exempt
        self._known: dict[tuple[str, int], Connection] = {}
        self._by_peer: dict[str, Connection] = {}
        self._port = 0
        self._descriptors: dict[int, tuple[str, int]] = {}
        self._others: dict[int, int] = {}  # bounded: by the numbers that a descriptor may have
        """The inodes of other sockets, by descriptor: a process may have thousands, and to ask each for its address takes long."""

    def change(self, *, per_network_max: int, is_exempt: Callable[[str], bool]) -> None:
        """Use other limits from now on."""
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
        """Find the open connections to `port`, close the surplus and the overdue ones, and return how many were open."""
        self._port = port
        self._descriptors = dict(_accepted(port, _own_descriptors(), self._others))
        found = {place: self._at(place, now_s) for place in self._descriptors.values()}
        self._known = found
        self._by_peer = {peer: each for peer, each in self._by_peer.items() if found.get((each.host, each.port)) is each}
        for each in surplus(found.values(), connections_max=self._connections_max, per_network_max=self._per_network_max):
            self.close(each)
        for each in found.values():
            # gRPC buffers a header block that never ends, at eleven times its size, and applies no limit of its own before the end.
            if each.standing is Standing.UNKNOWN and not each.exempt and each.is_overdue(self.received_bytes(each), now_s):
                self.close(each)
        return len(found)

    def received_bytes(self, connection: Connection) -> int:
        """Return how many bytes a connection has received so far; 0 if the system does not report it."""
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
        """Receive nothing more from a connection until `resume`; return whether that was possible.

        The system drops the packets that arrive, and TCP sends them again later. So neither gRPC nor this process spends time on them. If
        the connection were closed instead, the peer would come back at once on a new one. Only Linux can do this (socket(7)).
        """
        if not connection.is_paused and sys.platform == "linux":
            connection.is_paused = self._with_socket(connection, lambda found: found.setsockopt(socket.SOL_SOCKET, _ATTACH, _DROP_ALL))
        return connection.is_paused

    def resume(self, connection: Connection) -> None:
        """Receive from a connection again."""
        if connection.is_paused:
            connection.is_paused = False
            self._with_socket(connection, lambda found: found.setsockopt(socket.SOL_SOCKET, _DETACH, 0))

    def _with_socket(self, connection: Connection, act: Callable[[socket.socket], None]) -> bool:
        """Call `act` with a connection's socket; return whether the socket was found and the system reported no error."""
        place = (connection.host, connection.port)
        descriptor = self._descriptor_of(place)
        if descriptor is None:
            return False
        try:
            # A copy keeps its socket, even if the descriptor's number is reused meanwhile. The peer's address shows that it is ours.
            with socket.socket(fileno=os.dup(descriptor)) as copy:
                if _normal(copy.getpeername()) == place:
                    act(copy)
                    return True
        except OSError:
            pass
        self._descriptors.pop(descriptor, None)
        return False

    def _descriptor_of(self, place: tuple[str, int]) -> int | None:
        """Return the descriptor of a connection's socket; for a new connection, look through the new descriptors."""
        for descriptor, known in self._descriptors.items():
            if known == place:
                return descriptor
        new = _accepted(self._port, _own_descriptors() - self._descriptors.keys(), self._others)
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


def _accepted(port: int, descriptors: Iterable[int], others: dict[int, int]) -> Iterable[tuple[int, tuple[str, int]]]:
    """Yield each descriptor that is a TCP connection to a port of this process, with the peer's host and port.

    `others` are the inodes of descriptors that are another socket. They are passed over, and more of them are noted. Each socket has an
    inode of its own, so a number that a new socket has taken over is looked at again.
    """
    for descriptor in descriptors:
        try:
            inode = os.fstat(descriptor).st_ino
            if others.get(descriptor) == inode:
                continue
            looked_at = socket.socket(fileno=descriptor)
        except OSError:  # another kind of file, or closed by now
            continue
        try:
            if looked_at.family in {socket.AF_INET, socket.AF_INET6} and looked_at.getsockname()[1] == port:
                yield descriptor, _normal(looked_at.getpeername())
            else:
                others[descriptor] = inode
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
