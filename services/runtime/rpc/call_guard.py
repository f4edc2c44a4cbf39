"""Call guard: what a call may use before its caller is known, and how many calls one network may have in flight.

connection_limits → [call_guard] → handler

Law 1: a call with a valid key or the service token is never refused or delayed because other calls failed. The only exception is a proxy
that is not trusted: until its connection has shown a valid key, its clients share the pauses of law 2.
Law 2: the refusal of a call without valid credentials waits as long as `authentication_throttle` decides. Meanwhile the process reads
nothing more from a connection that has never shown valid credentials. The waiting refusals are bounded in number and bytes; beyond that,
a refusal is sent at once, or the connection is closed if the system cannot pause it.
Law 3: this file does not limit calls with the service token.
"""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Self

from services.runtime.authentication_throttle import FAILURES_BURST, FAILURES_PER_SECOND, AuthenticationThrottle
from services.runtime.configuration.common_settings import GrpcSettings
from services.runtime.configuration.settings_reader import variable
from services.runtime.errors import Failure, Reason
from services.runtime.file_limit import connections_within
from services.runtime.rpc.access import Access
from services.runtime.rpc.channel_arguments import READ_AHEAD_BYTES
from services.runtime.rpc.connection_limits import Connection, Connections, Standing

LOOK_EVERY_S = 0.25
PUBLIC_CALLS_MAX = 1000
"""How many calls without credentials (health checks, reflection) are in flight at once."""
PUBLIC_CALLS_PER_NETWORK_MAX = 100
# A waiting refusal takes about 35 kB, plus the bytes that its call has sent so far, up to `READ_AHEAD_BYTES` (channel_arguments.py).
REFUSALS_WAITING_MAX = 3072
REFUSALS_WAITING_PER_NETWORK_MAX = 1536
_ABANDONED_MAX = 10
_HELD_BYTES_MAX = 1024 * 1024
"""How much a paused connection may have sent so that several of its refusals may wait."""
_RETRY_S = 1.0
# How much a call may send while its caller is unknown: its metadata, and the part of its message that the transport reads ahead.
_CALL_BYTES_MAX = READ_AHEAD_BYTES + 16 * 1024
_PUBLIC_CALL_BYTES_MAX = 2 * 1024


def _nobody(_address: str) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class CallLimits:
    """How much of a gRPC listener clients may use; a network is an IPv4 address or an IPv6 /64."""

    connections_max: int = 1024
    connections_per_network_max: int = 256
    calls_per_connection_max: int = 100
    calls_per_network_max: int = 1000
    failures_burst: int = FAILURES_BURST
    failures_per_second: float = FAILURES_PER_SECOND
    is_exempt: Callable[[str], bool] = _nobody
    """Returns whether an address has no limits per network."""

    @classmethod
    def of(cls, settings: GrpcSettings, *, calls_per_connection_max: int = 100) -> Self:
        """Return the limits from the settings, below the limit of open files."""
        return cls(
            connections_max=connections_within(variable("grpc_connections_max"), settings.grpc_connections_max),
            connections_per_network_max=settings.grpc_address_connections_max,
            calls_per_connection_max=calls_per_connection_max,
            calls_per_network_max=settings.grpc_address_calls_max,
            failures_burst=settings.authentication_failures_burst,
            failures_per_second=settings.authentication_failures_per_second,
            is_exempt=settings.proxies().trusts,
        )


class CallGuard:
    """Counts the calls and refusals of one listener."""

    def __init__(self, limits: CallLimits, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Take the limits and a monotonic clock (seconds)."""
        self._limits = limits
        self._monotonic = monotonic
        self._throttle = AuthenticationThrottle(burst=limits.failures_burst, per_second=limits.failures_per_second)
        self._calls: Counter[tuple[Access, str]] = Counter()
        self._public_calls = 0
        self._waiting: Counter[str] = Counter()
        self._waiting_count = 0
        self._connections = Connections(
            connections_max=limits.connections_max, per_network_max=limits.connections_per_network_max, is_exempt=limits.is_exempt
        )
        # All peers of a Unix socket are one client.
        self._local = Connection("", 0, "", 0.0, exempt=limits.is_exempt(""))
        self._timer: asyncio.TimerHandle | None = None

    def change(self, limits: CallLimits) -> None:
        """Use other limits from now on. `connections_max` and `calls_per_connection_max` stay, since gRPC reads them only at the start."""
        self._limits = limits
        self._throttle.change(burst=limits.failures_burst, per_second=limits.failures_per_second)
        self._connections.change(per_network_max=limits.connections_per_network_max, is_exempt=limits.is_exempt)

    def watch(self, port: int) -> None:
        """Check the connections to a port at intervals of `LOOK_EVERY_S`, until `stop`."""
        loop = asyncio.get_running_loop()

        def look() -> None:
            self._connections.look(port, self._monotonic())
            self._timer = loop.call_later(LOOK_EVERY_S, look)

        look()

    def stop(self) -> None:
        """Stop checking the connections."""
        if self._timer is not None:
            self._timer.cancel()

    @contextlib.contextmanager
    def admitted(self, peer: str, access: Access) -> Iterator[None]:
        """Count a call while it is in flight; raise `Failure` OVERLOADED if its network, or all public calls together, have too many."""
        connection = self._connections.of(peer, self._monotonic()) or self._local
        if access is not Access.PUBLIC:
            connection.standing = max(connection.standing, Standing.KEY if access is Access.KEY else Standing.SERVICE)
            self._connections.resume(connection)
        if access is Access.SERVICE:
            yield
            return
        if access is Access.PUBLIC:
            connection.bytes_max += _PUBLIC_CALL_BYTES_MAX
        counted = (access, connection.network)
        self._check(access, counted, exempt=connection.exempt)
        self._calls[counted] += 1
        self._public_calls += access is Access.PUBLIC
        try:
            yield
        finally:
            self._public_calls -= access is Access.PUBLIC
            self._calls[counted] -= 1
            if not self._calls[counted]:
                del self._calls[counted]

    def _check(self, access: Access, counted: tuple[Access, str], *, exempt: bool) -> None:
        public = access is Access.PUBLIC
        per_network_max = PUBLIC_CALLS_PER_NETWORK_MAX if public else self._limits.calls_per_network_max
        if (not exempt and self._calls[counted] >= per_network_max) or (public and self._public_calls >= PUBLIC_CALLS_MAX):
            message = "Too many calls from your address are under way; wait until some of them end, or send more events in each call."
            raise Failure(Reason.OVERLOADED, message, retry_after_s=_RETRY_S)

    def begun(self, peer: str) -> None:
        """Note that a call has begun and its caller is not known yet."""
        (self._connections.of(peer, self._monotonic()) or self._local).bytes_max += _CALL_BYTES_MAX

    def abandoned(self, peer: str) -> None:
        """Count a call whose caller left before it was known; close a throttled, unknown connection that has many such calls."""
        connection = self._connections.of(peer, self._monotonic()) or self._local
        connection.abandoned += 1
        if self._failed(connection) and connection.abandoned >= _ABANDONED_MAX and self._is_stranger(connection):
            self._connections.close(connection)

    def _failed(self, connection: Connection) -> float:
        """Count a call without valid credentials, and pause its connection; return for how many seconds its refusal waits."""
        if connection.exempt:
            return 0.0
        connection.bytes_max += _CALL_BYTES_MAX
        delay_s = self._throttle.failed(connection.network, self._monotonic())
        if delay_s and self._is_stranger(connection) and not connection.is_paused and self._connections.pause(connection):
            asyncio.get_running_loop().call_later(delay_s, self._connections.resume, connection)
        return delay_s

    def _is_stranger(self, connection: Connection) -> bool:
        return connection is not self._local and connection.standing is Standing.UNKNOWN

    async def refused(self, peer: str) -> None:
        """Count a call without valid credentials, and wait until its refusal may be sent."""
        connection = self._connections.of(peer, self._monotonic()) or self._local
        delay_s = self._failed(connection)
        if not delay_s:
            return
        stranger = self._is_stranger(connection)
        if self._crowded(connection.network) or (stranger and connection.waiting and not self._may_hold(connection)):
            if stranger and not connection.is_paused:
                self._connections.close(connection)
            return
        connection.waiting += 1
        self._waiting[connection.network] += 1
        self._waiting_count += 1
        try:
            await asyncio.sleep(delay_s)
        finally:
            connection.waiting -= 1
            self._waiting[connection.network] -= 1
            self._waiting_count -= 1
            if not self._waiting[connection.network]:
                del self._waiting[connection.network]

    def _may_hold(self, connection: Connection) -> bool:
        """Return whether another refusal may wait on a connection without valid credentials.

        While refusals wait, their calls count as open. So gRPC itself refuses the calls beyond `calls_per_connection_max` that the peer had
        sent before it was paused.
        """
        return connection.is_paused and self._connections.received_bytes(connection) <= _HELD_BYTES_MAX

    def _crowded(self, network: str) -> bool:
        return self._waiting_count >= REFUSALS_WAITING_MAX or self._waiting[network] >= REFUSALS_WAITING_PER_NETWORK_MAX
