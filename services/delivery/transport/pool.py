"""Pool: keeps the connections, queues the flights that wait for one, and decides which flight is next.

http → [pool] → dialling, connection → callback URL

Law 1: every flight that enters the pool leaves it exactly once, with its answer; `close` ends the flights that are left.
Law 2: the number of connections is bounded, in all and for each host, and owners take turns for them. A waiting flight has not begun,
and can be withdrawn.
Law 3: if a kept connection breaks under a flight, the flight goes over a new connection, once: a stale connection costs no attempt.
"""

import asyncio
import itertools
import socket
from collections import Counter
from collections.abc import Callable

from services.delivery.transport.connection import Connection
from services.delivery.transport.dialling import Dialling
from services.delivery.transport.exchange import Flight, Limits, Way, failed, wire_of
from services.delivery.transport.fair_queue import FairQueue
from services.delivery.transport.protocol import WITHDRAWN, Answer, Outcome
from services.delivery.transport.tls_stream import Secured

Land = Callable[[Flight, Answer], None]

_SWEEP_S = 0.25
_IDLE_S = 30.0
# To find an idle connection to close, look at no more than this many.
_LOOKED_AT_MAX = 64
# A connection of this age closes after its answer, even if it is never idle; so requests follow a proxy that moves after this time at the
# latest. They follow a sink's name that moves as soon as it is looked up again, because `Host.kept` compares addresses.
_LIFETIME_S = 600.0
_SPOKE_FIRST = failed(Outcome.PROTOCOL, "the endpoint sent something before it had a request")
_STOPPED = failed(Outcome.RESET, "the service stopped before the answer came")


class Pool:
    """All connections of a transport."""

    def __init__(self, way: Way, limits: Limits, land: Land, fault: Callable[[BaseException], None]) -> None:
        """`land` takes each flight that leaves the pool; it may be called within `put` and `withdraw`."""
        self._way = way
        self._limits = limits
        self._land = land
        self.fault = fault
        self._loop = asyncio.get_running_loop()
        self._hosts: dict[tuple[str, int], Host] = {}
        self._open: dict[Connection | Dialling, None] = {}
        # The connection that has been idle longest comes first.
        self._idle: dict[Connection, None] = {}
        self._wanting = FairQueue()
        self._sweeping: asyncio.TimerHandle | None = None

    def put(self, flight: Flight) -> None:
        """Send a request as soon as its host has fewer than `host_connections_max` under way."""
        origin = flight.target.origin
        host = self._hosts.get(origin)
        if host is None:
            host = self._hosts[origin] = Host(origin)
        flight.host = host
        if host.under_way >= self._limits.host_connections_max:
            host.waiting.put(flight)
            return
        host.under_way += 1
        if not self._starts(flight):
            self._turn_over(host)

    def withdraw(self, subscription_id: str) -> None:
        """Answer with `WITHDRAWN` a subscription's flights that wait, and those that are being dialled for but may not begin."""
        for host in self._hosts.values():
            for flight in [each for each in host.waiting.flights() if each.request.subscription_id == subscription_id]:
                host.waiting.remove(flight)
                self._land(flight, WITHDRAWN)
        for flight in [each for each in self._wanting.flights() if each.request.subscription_id == subscription_id]:
            self._wanting.remove(flight)
            self._turn_over(flight.host)
            self._land(flight, WITHDRAWN)
        for each in [each for each in self._open if isinstance(each, Dialling) and each.flight.request.subscription_id == subscription_id]:
            begun = each.flight
            if _may_begin(begun):
                # If the present address cannot be reached, try no other address.
                begun.addresses = begun.addresses[: begun.tried + 1]
            else:
                each.close()
                del self._open[each]
                self._turn_over(begun.host)
                self._land(begun, WITHDRAWN)

    def retire(self, is_forbidden: Callable[[str], bool]) -> None:
        """Stop using connections to forbidden addresses; a connection that waits for an answer closes after the answer."""
        for each in [each for each in self._open if isinstance(each, Connection) and is_forbidden(each.address)]:
            if each in self._idle:
                self._let_go(each)
            else:
                each.born = float("-inf")

    def close(self) -> None:
        """End every flight that is left, and close all connections."""
        if self._sweeping is not None:
            self._sweeping.cancel()
        left = [each.flight for each in self._open if each.flight is not None]
        left += [*self._wanting.flights(), *(flight for host in self._hosts.values() for flight in host.waiting.flights())]
        for each in self._open:
            each.close()
        self._open.clear()
        self._idle.clear()
        self._wanting.clear()
        self._hosts.clear()
        for flight in left:
            self._land(flight, _STOPPED)

    # Start of a flight

    def _starts(self, flight: Flight) -> bool:
        """Serialize the request, start its time limit, and begin to send; return False, and end the flight, if it cannot be serialized."""
        request = flight.request
        try:
            flight.wire = wire_of(request, flight.target)
        except ValueError as error:
            self._land(flight, failed(Outcome.PROTOCOL, f"the request could not be made: {_why(error)}"))
            return False
        now = self._loop.time()
        flight.deadline = now + (self._limits.timeout_s if request.timeout_s is None else request.timeout_s)
        self._begin(flight, now)
        return True

    def _begin(self, flight: Flight, now: float) -> None:
        """Send a flight that has its host's turn, over a kept connection or a new one; queue it if it may not begin or the pool is full."""
        if not _may_begin(flight):
            self._wanting.put(flight)
            self._see_to_sweeping()
            return
        kept = None if flight.fresh else flight.host.kept(flight)
        while kept is not None:
            del self._idle[kept]
            if kept.is_quiet():
                kept.send(flight, now)
                return
            kept.close()
            del self._open[kept]
            kept = flight.host.kept(flight)
        if self._has_room():
            self._open[Dialling(self, self._way, self._limits, self._loop, flight)] = None
            self._see_to_sweeping()
        else:
            self._wanting.put(flight)
            self._see_to_sweeping()

    def _has_room(self) -> bool:
        """Return whether another connection may be opened. If the pool is full, close one idle connection first."""
        if len(self._open) < self._limits.connections_max:
            return True
        oldest = list(itertools.islice(self._idle, _LOOKED_AT_MAX))
        if not oldest:
            return False
        # Take it from the owner with the most idle connections: otherwise a consumer with many hosts would close those of all others.
        ((most, _),) = Counter(each.owner for each in oldest).most_common(1)
        self._let_go(next(each for each in oldest if each.owner == most))
        return True

    def _turn_over(self, host: "Host") -> None:
        """Give a host's turn to the next flight that waits for the host."""
        while host.waiting:
            if self._starts(host.waiting.take()):
                return
        host.under_way -= 1
        if not host.under_way and not host.idle:
            del self._hosts[host.origin]

    def _end(self, flight: Flight, answer: Answer) -> None:
        """End a flight. Flights that wait because the pool is full come before those that wait for this flight's host."""
        if self._wanting:
            self._serve_wanting()
        self._turn_over(flight.host)
        self._land(flight, answer)

    def _serve_wanting(self) -> None:
        """Begin the flights that wait for room in the pool or for `may_begin`, as far as there is room."""
        # Try each flight once: a flight that may not begin returns to the queue.
        for _ in self._wanting.flights():
            if not self._wanting or not (self._idle or len(self._open) < self._limits.connections_max):
                return
            self._begin(self._wanting.take(), self._loop.time())

    # Calls from connections and diallings

    def connected(self, dialling: Dialling, connected: socket.socket | Secured) -> None:
        """See `dialling.Keeper.connected`."""
        del self._open[dialling]
        if not _may_begin(dialling.flight):
            connected.close()
            self._wanting.put(dialling.flight)
            return
        connection = Connection(self, self._limits, self._loop, connected, dialling.address, dialling.flight)
        if connection.is_quiet():
            self._open[connection] = None
            connection.send(dialling.flight, connection.born)
        else:
            connection.close()
            self._end(dialling.flight, _SPOKE_FIRST)

    def failed(self, dialling: Dialling, answer: Answer) -> None:
        """See `dialling.Keeper.failed`."""
        del self._open[dialling]
        flight, now = dialling.flight, self._loop.time()
        if answer.outcome is Outcome.CONNECT and flight.addresses_left > 1 and now < min(flight.connect_by, flight.deadline):
            flight.tried += 1
            self._begin(flight, now)
        else:
            self._end(flight, answer)

    def answered(self, connection: Connection, flight: Flight, answer: Answer) -> None:
        """See `connection.Keeper.answered`."""
        now = self._loop.time()
        if connection.is_closed:
            del self._open[connection]
        elif now - connection.born > _LIFETIME_S:
            connection.close()
            del self._open[connection]
        else:
            connection.idle_since = now
            host = flight.host
            host.idle.append(connection)
            self._idle[connection] = None
            if not host.waiting and not self._wanting:
                # The usual case: no flight waits for the connection that has become free.
                host.under_way -= 1
                self._land(flight, answer)
                return
        self._end(flight, answer)

    def stale(self, connection: Connection, flight: Flight) -> None:
        """See `connection.Keeper.stale`."""
        del self._open[connection]
        flight.fresh = True
        self._begin(flight, self._loop.time())

    def lost(self, connection: Connection) -> None:
        """See `connection.Keeper.lost`."""
        self._let_go(connection)
        if self._wanting:
            self._serve_wanting()

    def _let_go(self, idle: Connection) -> None:
        idle.close()
        del self._open[idle], self._idle[idle]
        host = self._hosts[idle.origin]
        host.idle.remove(idle)
        if not host.under_way and not host.idle:
            del self._hosts[idle.origin]

    # Timeouts

    def _see_to_sweeping(self) -> None:
        if self._sweeping is None:
            self._sweeping = self._loop.call_later(_SWEEP_S, self._sweep)

    def _sweep(self) -> None:
        """End the flights whose time is over, and close connections that have been idle too long or whose TLS context is retired."""
        self._sweeping = None
        try:
            now = self._loop.time()
            for each in list(self._open):
                answer = each.overdue(now)
                if answer is not None:
                    each.cut_off(answer)
            for connection in list(self._idle):
                if now - connection.idle_since >= _IDLE_S or (connection.trust is not None and connection.trust.retired):
                    self._let_go(connection)
            for flight in [each for each in self._wanting.flights() if each.deadline <= now]:
                self._wanting.remove(flight)
                self._turn_over(flight.host)
                self._land(flight, failed(Outcome.TIMEOUT, "no answer within the time limit"))
            self._serve_wanting()
        except Exception as error:  # noqa: BLE001 - passed on: after a bug in the transport no guarantee holds
            self.fault(error)
        if self._open or self._wanting:
            self._see_to_sweeping()


class Host:
    """The flights and connections of one host and port; exists while a flight is under way or an idle connection is kept."""

    __slots__ = ("idle", "origin", "under_way", "waiting")

    def __init__(self, origin: tuple[str, int]) -> None:
        """Start without flights and connections."""
        self.origin = origin
        self.under_way = 0
        self.waiting = FairQueue()
        self.idle: list[Connection] = []

    def kept(self, flight: Flight) -> Connection | None:
        """Remove and return the kept connection that was used last and may serve a flight; None if there is none."""
        idle = self.idle
        at = len(idle)
        while at:
            at -= 1
            connection = idle[at]
            if connection.trust is flight.trust and connection.address in flight.addresses:
                del idle[at]
                return connection
        return None


def _may_begin(flight: Flight) -> bool:
    may_begin = flight.request.may_begin
    return may_begin is None or may_begin()


def _why(error: ValueError) -> str:
    return "it has characters beyond ASCII in its headers" if isinstance(error, UnicodeError) else str(error)
