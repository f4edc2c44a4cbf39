"""Pool: keeps the connections, queues the exchanges that wait for one, and decides which exchange is next.

http → [pool] → dialling, connection → callback URL

Law 1: every exchange that enters the pool leaves it exactly once, with its answer; `close` ends the exchanges that are left.
Law 2: the number of connections is bounded, in all and for each host, and owners take turns for them. A waiting exchange has not begun,
and can be withdrawn.
Law 3: if a kept connection breaks under an exchange, the exchange goes over a new connection, once: a stale connection costs no attempt.
"""

import asyncio
import itertools
import socket
from collections import Counter
from collections.abc import Callable

from services.delivery.transport.connection import Connection
from services.delivery.transport.dialling import Dialling
from services.delivery.transport.exchange import DialPolicy, Exchange, Limits, failed, request_bytes
from services.delivery.transport.fair_queue import FairQueue
from services.delivery.transport.protocol import WITHDRAWN, Answer, Outcome, Request
from services.delivery.transport.tls_stream import TlsStream

Finish = Callable[[Exchange, Answer], None]

_SWEEP_S = 0.25
_IDLE_S = 30.0
# To find an idle connection to close, look at no more than this many.
_LOOKED_AT_MAX = 64
# A connection of this age closes after its answer, even if it is never idle; so requests follow a proxy that moves after this time at the
# latest. They follow a sink's name that moves as soon as it is looked up again, because `Host.take_idle` compares addresses.
_LIFETIME_S = 600.0
_SPOKE_FIRST = failed(Outcome.PROTOCOL, "the server sent data before it had received a request")
_STOPPED = failed(Outcome.RESET, "the service stopped before the answer came")


class Pool:
    """All connections of a transport."""

    def __init__(self, dial_policy: DialPolicy, limits: Limits, finish: Finish, fault: Callable[[BaseException], None]) -> None:
        """`finish` takes each exchange that leaves the pool; it may be called within `put` and `withdraw`."""
        self._dial_policy = dial_policy
        self._limits = limits
        self._finish = finish
        self.fault = fault
        self._loop = asyncio.get_running_loop()
        self._hosts: dict[tuple[str, int], Host] = {}
        self._open: dict[Connection | Dialling, None] = {}
        # The connection that has been idle longest comes first.
        self._idle: dict[Connection, None] = {}
        self._waiting = FairQueue()
        self._sweep_timer: asyncio.TimerHandle | None = None

    def put(self, exchange: Exchange) -> None:
        """Send a request as soon as its host has fewer than `host_connections_max` under way."""
        origin = exchange.target.origin
        host = self._hosts.get(origin)
        if host is None:
            host = self._hosts[origin] = Host(origin)
        exchange.host = host
        if host.under_way >= self._limits.host_connections_max:
            host.waiting.put(exchange)
            return
        host.under_way += 1
        if not self._start(exchange):
            self._pass_turn(host)

    def withdraw(self, is_meant: Callable[[Request], bool]) -> None:
        """Answer with `WITHDRAWN` the meant exchanges that wait, or that may not begin although a connection is being made for them."""
        for host in self._hosts.values():
            for exchange in [each for each in host.waiting.exchanges() if is_meant(each.request)]:
                host.waiting.remove(exchange)
                self._finish(exchange, WITHDRAWN)
        for exchange in [each for each in self._waiting.exchanges() if is_meant(each.request)]:
            self._waiting.remove(exchange)
            self._pass_turn(exchange.host)
            self._finish(exchange, WITHDRAWN)
        for each in [each for each in self._open if isinstance(each, Dialling) and is_meant(each.exchange.request)]:
            begun = each.exchange
            if _may_begin(begun):
                # If the present address cannot be reached, try no other address.
                begun.addresses = begun.addresses[: begun.tried + 1]
            else:
                each.close()
                del self._open[each]
                self._pass_turn(begun.host)
                self._finish(begun, WITHDRAWN)

    def retire(self, is_forbidden: Callable[[str], bool]) -> None:
        """Stop using connections to forbidden addresses; a connection that waits for an answer closes after the answer."""
        for each in [each for each in self._open if isinstance(each, Connection) and is_forbidden(each.address)]:
            if each in self._idle:
                self._close_idle(each)
            else:
                each.born = float("-inf")

    def close(self) -> None:
        """End every exchange that is left, and close all connections."""
        if self._sweep_timer is not None:
            self._sweep_timer.cancel()
        left = [each.exchange for each in self._open if each.exchange is not None]
        left += [*self._waiting.exchanges(), *(exchange for host in self._hosts.values() for exchange in host.waiting.exchanges())]
        for each in self._open:
            each.close()
        self._open.clear()
        self._idle.clear()
        self._waiting.clear()
        self._hosts.clear()
        for exchange in left:
            self._finish(exchange, _STOPPED)

    # Start of an exchange

    def _start(self, exchange: Exchange) -> bool:
        """Serialize the request, start its time limit, and begin to send; return False and end it if it cannot be serialized."""
        request = exchange.request
        try:
            exchange.request_bytes = request_bytes(request, exchange.target)
        except ValueError as error:
            self._finish(exchange, failed(Outcome.PROTOCOL, f"the request could not be made: {_why(error)}"))
            return False
        now = self._loop.time()
        exchange.deadline = now + (self._limits.timeout_s if request.timeout_s is None else request.timeout_s)
        self._begin(exchange, now)
        return True

    def _begin(self, exchange: Exchange, now: float) -> None:
        """Send an exchange over a kept or a new connection in its host's turn; queue it if it may not begin, or the pool is full."""
        if not _may_begin(exchange):
            self._waiting.put(exchange)
            self._schedule_sweep()
            return
        idle = None if exchange.fresh else exchange.host.take_idle(exchange)
        while idle is not None:
            del self._idle[idle]
            if idle.is_quiet():
                idle.send(exchange, now)
                return
            idle.close()
            del self._open[idle]
            idle = exchange.host.take_idle(exchange)
        if self._has_room():
            self._open[Dialling(self, self._dial_policy, self._limits, self._loop, exchange)] = None
            self._schedule_sweep()
        else:
            self._waiting.put(exchange)
            self._schedule_sweep()

    def _has_room(self) -> bool:
        """Return whether another connection may be opened. If the pool is full, close one idle connection first."""
        if len(self._open) < self._limits.connections_max:
            return True
        oldest = list(itertools.islice(self._idle, _LOOKED_AT_MAX))
        if not oldest:
            return False
        # Take it from the owner with the most idle connections: otherwise a consumer with many hosts would close those of all others.
        ((most, _),) = Counter(each.owner for each in oldest).most_common(1)
        self._close_idle(next(each for each in oldest if each.owner == most))
        return True

    def _pass_turn(self, host: "Host") -> None:
        """Give a host's turn to the next exchange that waits for the host."""
        while host.waiting:
            if self._start(host.waiting.take()):
                return
        host.under_way -= 1
        if not host.under_way and not host.idle:
            del self._hosts[host.origin]

    def _end(self, exchange: Exchange, answer: Answer) -> None:
        """End an exchange. Exchanges that wait because the pool is full come before those that wait for this exchange's host."""
        if self._waiting:
            self._serve_waiting()
        self._pass_turn(exchange.host)
        self._finish(exchange, answer)

    def _serve_waiting(self) -> None:
        """Begin the exchanges that wait for room in the pool or for `may_begin`, as far as there is room."""
        # Try each exchange once: an exchange that may not begin returns to the queue.
        for _ in self._waiting.exchanges():
            if not self._waiting or not (self._idle or len(self._open) < self._limits.connections_max):
                return
            self._begin(self._waiting.take(), self._loop.time())

    # Calls from connections and diallings

    def connected(self, dialling: Dialling, connected: socket.socket | TlsStream) -> None:
        """See `dialling.Keeper.connected`."""
        del self._open[dialling]
        if not _may_begin(dialling.exchange):
            connected.close()
            self._waiting.put(dialling.exchange)
            return
        connection = Connection(self, self._limits, self._loop, connected, dialling.address, dialling.exchange)
        if connection.is_quiet():
            self._open[connection] = None
            connection.send(dialling.exchange, connection.born)
        else:
            connection.close()
            self._end(dialling.exchange, _SPOKE_FIRST)

    def failed(self, dialling: Dialling, answer: Answer) -> None:
        """See `dialling.Keeper.failed`."""
        del self._open[dialling]
        exchange, now = dialling.exchange, self._loop.time()
        if answer.outcome is Outcome.CONNECT and exchange.addresses_left > 1 and now < min(exchange.connect_by, exchange.deadline):
            exchange.tried += 1
            self._begin(exchange, now)
        else:
            self._end(exchange, answer)

    def answered(self, connection: Connection, exchange: Exchange, answer: Answer) -> None:
        """See `connection.Keeper.answered`."""
        now = self._loop.time()
        if connection.is_closed:
            del self._open[connection]
        elif now - connection.born > _LIFETIME_S:
            connection.close()
            del self._open[connection]
        else:
            connection.idle_since = now
            host = exchange.host
            host.idle.append(connection)
            self._idle[connection] = None
            if not host.waiting and not self._waiting:
                # The usual case: no exchange waits for the connection that has become free.
                host.under_way -= 1
                self._finish(exchange, answer)
                return
        self._end(exchange, answer)

    def stale(self, connection: Connection, exchange: Exchange) -> None:
        """See `connection.Keeper.stale`."""
        del self._open[connection]
        exchange.fresh = True
        self._begin(exchange, self._loop.time())

    def lost(self, connection: Connection) -> None:
        """See `connection.Keeper.lost`."""
        self._close_idle(connection)
        if self._waiting:
            self._serve_waiting()

    def _close_idle(self, idle: Connection) -> None:
        idle.close()
        del self._open[idle], self._idle[idle]
        host = self._hosts[idle.origin]
        host.idle.remove(idle)
        if not host.under_way and not host.idle:
            del self._hosts[idle.origin]

    # Timeouts

    def _schedule_sweep(self) -> None:
        if self._sweep_timer is None:
            self._sweep_timer = self._loop.call_later(_SWEEP_S, self._sweep)

    def _sweep(self) -> None:
        """End the exchanges whose time is over, and close connections that have been idle too long or whose TLS context is retired."""
        self._sweep_timer = None
        try:
            now = self._loop.time()
            for each in list(self._open):
                answer = each.overdue(now)
                if answer is not None:
                    each.cut_off(answer)
            for connection in list(self._idle):
                if now - connection.idle_since >= _IDLE_S or (connection.tls_context is not None and connection.tls_context.retired):
                    self._close_idle(connection)
            for exchange in [each for each in self._waiting.exchanges() if each.deadline <= now]:
                self._waiting.remove(exchange)
                self._pass_turn(exchange.host)
                self._finish(exchange, failed(Outcome.TIMEOUT, "no answer within the time limit"))
            self._serve_waiting()
        except Exception as error:  # noqa: BLE001 - passed on: after a bug in the transport no guarantee holds
            self.fault(error)
        if self._open or self._waiting:
            self._schedule_sweep()


class Host:
    """The exchanges and connections of one host and port; exists while an exchange is under way or an idle connection is kept."""

    __slots__ = ("idle", "origin", "under_way", "waiting")

    def __init__(self, origin: tuple[str, int]) -> None:
        """Start without exchanges and connections."""
        self.origin = origin
        self.under_way = 0
        self.waiting = FairQueue()
        self.idle: list[Connection] = []

    def take_idle(self, exchange: Exchange) -> Connection | None:
        """Remove and return the most recently used idle connection that may serve an exchange; None if no connection may."""
        idle = self.idle
        at = len(idle)
        while at:
            at -= 1
            connection = idle[at]
            if connection.tls_context is exchange.tls_context and connection.address in exchange.addresses:
                del idle[at]
                return connection
        return None


def _may_begin(exchange: Exchange) -> bool:
    may_begin = exchange.request.may_begin
    return may_begin is None or may_begin()


def _why(error: ValueError) -> str:
    return "a header has characters beyond ASCII" if isinstance(error, UnicodeError) else str(error)
