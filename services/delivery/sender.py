"""Sender: the one thread that all requests leave by, around libcurl's multi interface.

transport → [sender] → exchange → callback URL

Law 1: every flight put in comes out exactly once, with its answer; at the end those under way come out too.
Law 2: whatever is ready is handled in one pass and handed back in one piece: the event loop is woken once for many answers.
Law 3: connections are bounded in all and for each host; what waits for a host's turn has not begun, and can be withdrawn.
"""

import contextlib
import os
import select
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

import pycurl

from services.delivery.exchange import Exchange, Flight, Limits, Way, failed
from services.delivery.model import Outcome
from services.delivery.transport import WITHDRAWN, Answer

Landed = list[tuple[Flight, Answer]]

_SWEEP_S = 0.25
# After so long without a request the idle connections are let go of; while there are requests libcurl sees to it.
_REST_S = 30.0


class Sender:
    """The thread. `put`, `withdraw` and `stop` are for the event loop, the rest runs in the thread."""

    def __init__(self, way: Way, limits: Limits, land: Callable[[Landed], None], ended: Callable[[BaseException | None], None]) -> None:
        """`land` and `ended` are called in the thread: the one with what has come out, the other once, at its end."""
        self._way = way
        self._limits = limits
        self._land = land
        self._ended = ended
        # Flights, or the id of a subscription whose flights before it are withdrawn.
        self._inbox: deque[list[Flight] | str] = deque()
        self._sockets: _Sockets = _Epoll() if sys.platform == "linux" else _Select()
        self._stopping = False
        self._multi = self._new_multi()
        self._free: list[Exchange] = []
        self._under_way: dict[pycurl.Curl, Exchange] = {}
        self._hosts: dict[tuple[str, int], _Host] = {}
        self._next: deque[Flight] = deque()
        self._landed: Landed = []
        self._next_sweep = 0.0
        self._busy_at = 0.0
        self._thread = threading.Thread(target=self._run, name="sender", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def put(self, flights: list[Flight]) -> None:
        """Send requests."""
        self._inbox.append(flights)
        self._sockets.wake()

    def withdraw(self, subscription_id: str) -> None:
        """Begin nothing that was put in for a subscription and has not begun."""
        self._inbox.append(subscription_id)
        self._sockets.wake()

    def stop(self) -> None:
        """End: what is under way is cut off."""
        self._stopping = True
        self._sockets.wake()

    def join(self) -> None:
        """Wait for the thread, which has said that it has ended."""
        self._thread.join()
        self._sockets.close()

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._sockets.wait(self._multi, self._patience_s())
                self._take_in()
                self._multi.perform()
                self._take_out()
                now = time.monotonic()
                if now >= self._next_sweep:
                    self._sweep(now)
                self._take_turns()
                self._hand_over()
            self._cut_off()
        except BaseException as error:  # noqa: BLE001 - handed on: without this thread nothing can be sent
            self._ended(error)
        else:
            self._ended(None)

    def _patience_s(self) -> float:
        """Return how long nothing has to be done unless a socket or the event loop has something."""
        if self._inbox or self._next or self._stopping:
            return 0.0
        timeout_ms: int = self._multi.timeout()
        limit_s = _SWEEP_S if self._under_way else _REST_S
        return limit_s if timeout_ms < 0 else min(limit_s, timeout_ms / 1000)

    # Into libcurl

    def _new_multi(self) -> pycurl.CurlMulti:
        multi = pycurl.CurlMulti()
        multi.setopt(pycurl.M_MAXCONNECTS, self._limits.connections_max)
        multi.setopt(pycurl.M_MAX_TOTAL_CONNECTIONS, self._limits.connections_max)
        return multi

    def _take_in(self) -> None:
        now = time.monotonic()
        while self._inbox:
            taken = self._inbox.popleft()
            if isinstance(taken, str):
                self._withdraw(taken)
                continue
            for flight in taken:
                host = self._hosts.get(flight.host)
                if host is None:
                    host = self._hosts[flight.host] = _Host()
                if host.under_way < self._limits.host_connections_max:
                    host.under_way += 1
                    self._begin(flight, now)
                else:
                    host.waiting.append(flight)

    def _withdraw(self, subscription_id: str) -> None:
        for host in self._hosts.values():
            waiting, host.waiting = host.waiting, deque()
            for flight in waiting:
                if flight.request.subscription_id == subscription_id:
                    self._landed.append((flight, WITHDRAWN))
                else:
                    host.waiting.append(flight)
        for flight in [each for each in self._next if each.request.subscription_id == subscription_id]:
            self._next.remove(flight)
            self._come_out(flight, WITHDRAWN)
        for exchange in [each for each in self._under_way.values() if each.flight.request.subscription_id == subscription_id]:
            flight = exchange.flight
            if exchange.has_begun() or flight.tried:
                # Where it cannot be reached there, it goes nowhere else.
                flight.addresses = flight.addresses[: flight.tried + 1]
            else:
                self._let_go(exchange)
                self._come_out(flight, WITHDRAWN)

    def _take_turns(self) -> None:
        """Begin what a host, or another address of it, has its turn for."""
        now = time.monotonic()
        for _ in range(len(self._next)):
            self._begin(self._next.popleft(), now)

    def _begin(self, flight: Flight, now: float) -> None:
        request = flight.request
        if not flight.deadline:
            flight.deadline = now + (self._limits.timeout_s if request.timeout_s is None else request.timeout_s)
        special = request.whole or request.tls is not None or request.method != "POST"
        exchange = self._free.pop() if self._free and not special else Exchange(self._way, self._limits, self._sockets.add)
        try:
            (exchange.begin_special if special else exchange.begin)(flight, now)
        except (ValueError, pycurl.error) as error:
            exchange.easy.close()
            reason = str(error) if isinstance(error, ValueError) else "libcurl does not take it"
            self._come_out(flight, failed(Outcome.PROTOCOL, f"the request could not be made: {reason}"))
            return
        self._under_way[exchange.easy] = exchange
        self._multi.add_handle(exchange.easy)

    # Out of libcurl

    def _take_out(self) -> None:
        _, succeeded, broken = self._multi.info_read()
        for easy in succeeded:
            self._end(self._under_way[easy], 0, "")
        for easy, error, text in broken:
            self._end(self._under_way[easy], error, text)

    def _end(self, exchange: Exchange, error: int, text: str) -> None:
        flight = exchange.flight
        answer = exchange.answer(error, text)
        self._let_go(exchange)
        if answer.outcome is Outcome.CONNECT and flight.tried + 1 < len(flight.addresses) and time.monotonic() < flight.deadline:
            flight.tried += 1
            self._next.append(flight)
        else:
            self._come_out(flight, answer)

    def _let_go(self, exchange: Exchange) -> None:
        del self._under_way[exchange.easy]
        self._multi.remove_handle(exchange.easy)
        if exchange.is_plain and len(self._free) < self._limits.connections_max:
            self._free.append(exchange)
        else:
            exchange.easy.close()

    def _come_out(self, flight: Flight, answer: Answer) -> None:
        self._landed.append((flight, answer))
        host = self._hosts[flight.host]
        if host.waiting:
            self._next.append(host.waiting.popleft())
        else:
            host.under_way -= 1
            if not host.under_way:
                del self._hosts[flight.host]

    def _sweep(self, now: float) -> None:
        """End what has had no first byte in time, and let go of connections after a long rest."""
        self._next_sweep = now + _SWEEP_S
        late = now - self._limits.first_byte_timeout_s
        # A request with a time limit of its own may use all of it.
        usual = [each for each in self._under_way.values() if each.began <= late and each.flight.request.timeout_s is None]
        for exchange in [each for each in usual if not each.has_answer_begun()]:
            self._let_go(exchange)
            self._come_out(exchange.flight, failed(Outcome.TIMEOUT, "no answer began within the time limit"))
        if self._under_way:
            self._busy_at = now
        elif now - self._busy_at >= _REST_S:
            self._multi.close()
            self._multi = self._new_multi()
            self._busy_at = now

    def _hand_over(self) -> None:
        if self._landed:
            landed, self._landed = self._landed, []
            self._land(landed)

    def _cut_off(self) -> None:
        """Bring out all that is left, and close everything."""
        answer = failed(Outcome.RESET, "the service stopped before the answer came")
        for exchange in self._under_way.values():
            self._landed.append((exchange.flight, answer))
            self._multi.remove_handle(exchange.easy)
            exchange.easy.close()
        for host in self._hosts.values():
            self._landed += [(flight, answer) for flight in host.waiting]
        self._landed += [(flight, answer) for flights in (self._next, *self._inbox) if not isinstance(flights, str) for flight in flights]
        self._hand_over()
        for exchange in self._free:
            exchange.easy.close()
        self._multi.close()


class _Host:
    """What goes to one host and port."""

    __slots__ = ("under_way", "waiting")

    def __init__(self) -> None:
        self.under_way = 0
        self.waiting: deque[Flight] = deque()


class _Sockets(Protocol):
    """Waits for sockets and for the event loop."""

    def add(self, number: int) -> None:
        """Watch a new socket, until it is closed."""

    def wait(self, multi: pycurl.CurlMulti, patience_s: float) -> None:
        """Wait until something is to be done."""

    def wake(self) -> None:
        """End the waiting, now or the next; called by the event loop."""

    def close(self) -> None:
        """Let go."""


class _Epoll:
    """Each socket is registered once, for edges: libcurl handles all that is ready in one pass and asks for nothing between."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._wake_fd, select.EPOLLIN | select.EPOLLET)

    def add(self, number: int) -> None:
        # The kernel forgets it when libcurl closes it.
        self._epoll.register(number, select.EPOLLIN | select.EPOLLOUT | select.EPOLLET)

    def wait(self, _multi: pycurl.CurlMulti, patience_s: float) -> None:
        self._epoll.poll(patience_s)

    def wake(self) -> None:
        os.eventfd_write(self._wake_fd, 1)

    def close(self) -> None:
        self._epoll.close()
        os.close(self._wake_fd)


class _Select:
    """For systems without epoll: asks libcurl for its sockets each time. Serves few connections, as on a laptop."""

    def __init__(self) -> None:
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)

    def add(self, number: int) -> None:
        """Nothing is to be kept."""

    def wait(self, multi: pycurl.CurlMulti, patience_s: float) -> None:
        reading, writing, failing = multi.fdset()
        ready, _, _ = select.select([self._wake_read, *reading], writing, failing, patience_s)
        if self._wake_read in ready:
            os.read(self._wake_read, 4096)

    def wake(self) -> None:
        with contextlib.suppress(BlockingIOError):  # full of wake-ups already
            os.write(self._wake_write, b"\0")

    def close(self) -> None:
        os.close(self._wake_read)
        os.close(self._wake_write)
