"""Sink server: a receiver that costs next to nothing, in a process of its own, plaintext and TLS, at as many addresses as asked for.

It answers 200 to every request, counts, and records when each `webhook-id` first came (in ns of the monotonic
clock, which all processes of a machine share). It answers each line on its standard input with one line of JSON:
`count`, `arrivals`, `order` (the ids in the order of their arrival), `sample` (the latest request as it came), `forget` (forget all
requests), and lines that change its behaviour:
- `delay <seconds>`: answer that late; `hold`: do not answer at all; `answer`: answer at once again, and answer all held requests
- `die`: close each connection that brings a request, without an answer, until `answer`
It ends when standard input closes.

It reads sockets without an event loop, since CPU time that the receiver takes of its core is missing for the load.
"""

import contextlib
import errno
import json
import math
import os
import select
import socket
import ssl
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from tests.support.certificates import Authority

_OK = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
_END = b"\r\n\r\n"
_SIZE, _ID = b"content-length: ", b"webhook-id: "
_READ_BYTES = 256 * 1024
_BACKLOG = 2048


def addresses(count: int) -> list[str]:
    """Return `count` addresses of this machine, 127.0.0.1 first; `count` is at most 50 000."""
    return [f"127.0.{number // 250}.{number % 250 + 1}" for number in range(count)]


class Seen:
    """The requests that have come."""

    def __init__(self) -> None:
        self.latest = b"", b""
        self.behaviour = Behaviour()
        self.forget()

    def forget(self) -> None:
        """Forget all requests."""
        self.count, self.last_ns = 0, 0
        self.first: dict[bytes, int] = {}
        self.refused: set[bytes] = set()
        self.behaviour.waiting_most = 0

    def take(self, head: bytes, body: bytes) -> None:
        """Count a request, or note that a dead sink has got it; the names of its header lines must be in lower case."""
        at = head.find(_ID) + len(_ID)
        event_id = head[at : head.find(b"\r\n", at)]
        if self.behaviour.is_dead:
            self.refused.add(event_id)
            return
        self.count += 1
        self.last_ns = time.monotonic_ns()
        self.first.setdefault(event_id, self.last_ns)
        self.latest = head, body

    def told(self, what: str) -> object:
        """Return the answer to a line."""
        match what.split():
            case ["count"]:
                return {"count": self.count, "last_ns": self.last_ns, "waiting_most": self.behaviour.waiting_most}
            case ["arrivals"]:
                return {event_id.decode(): at_ns for event_id, at_ns in self.first.items()}
            case ["order"]:
                return [event_id.decode() for event_id in self.first if event_id not in self.refused]
            case ["sample"]:
                # One character for each byte.
                return [part.decode("latin-1") for part in self.latest]
            case ["forget"]:
                self.forget()
            case how:
                self.behaviour.obey(how)
        return None


class Behaviour:
    """How requests are answered: at once, late, not at all, or not even taken."""

    def __init__(self) -> None:
        self._delay_s: float | None = 0.0
        self.is_dead = False
        self._waiting: deque[tuple[float, Callable[[], None]]] = deque()
        self.waiting_most = 0
        """The largest number of requests that have waited for their answers at once."""

    def obey(self, how: Sequence[str]) -> None:
        """Behave as a line says from now on; answer what waits."""
        match how:
            case ["answer"]:
                self._delay_s, self.is_dead = 0.0, False
            case ["delay", seconds]:
                self._delay_s, self.is_dead = float(seconds), False
            case ["hold"]:
                self._delay_s, self.is_dead = None, False
            case ["die"]:
                self.is_dead = True
            case _:
                raise ValueError(how)
        while self._waiting:
            self._waiting.popleft()[1]()

    @property
    def is_prompt(self) -> bool:
        """Whether requests are answered at once."""
        return self._delay_s == 0.0 and not self.is_dead

    def wait(self, answer: Callable[[], None]) -> None:
        """Answer later."""
        self._waiting.append((math.inf if self._delay_s is None else time.monotonic() + self._delay_s, answer))
        self.waiting_most = max(self.waiting_most, len(self._waiting))

    def answer_due(self) -> float | None:
        """Answer what is due; return for how long nothing more will be due, in seconds, None if nothing waits for a time."""
        while self._waiting and (left_s := self._waiting[0][0] - time.monotonic()) <= 0:
            self._waiting.popleft()[1]()
        return None if not self._waiting or math.isinf(left_s) else left_s


class Peer:
    """One keep-alive connection, whose requests state their size."""

    __slots__ = ("_rest", "_seen", "_shaken", "_socket")

    def __init__(self, connected: socket.socket, seen: Seen) -> None:
        self._socket = connected
        self._seen = seen
        self._shaken = not isinstance(connected, ssl.SSLSocket)
        self._rest = b""

    def ready(self) -> bool:
        """Read what has come and answer it; return whether the connection is still open, else close it."""
        stands = self._read()
        if not stands:
            self._socket.close()
        return stands

    def _read(self) -> bool:
        try:
            if not self._shaken:
                self._socket.do_handshake()  # type: ignore[attr-defined]  # then it is one of TLS
                self._shaken = True
            while data := self._socket.recv(_READ_BYTES):
                answers = self._requests(self._rest + data if self._rest else data)
                if answers and not self._answer(answers):
                    return False
                # With TLS, one read returns at most one record.
                if not (isinstance(self._socket, ssl.SSLSocket) and self._socket.pending()):
                    return True
        except (BlockingIOError, ssl.SSLWantReadError):
            return True
        except OSError:
            return False
        return False

    def _answer(self, answers: int) -> bool:
        """Answer requests, now or later; return False if the connection is of no more use."""
        behaviour = self._seen.behaviour
        if behaviour.is_prompt:
            return self._socket.send(_OK * answers) == len(_OK) * answers
        if behaviour.is_dead:
            return False
        behaviour.wait(partial(self._answer_late, answers))
        return True

    def _answer_late(self, answers: int) -> None:
        with contextlib.suppress(OSError):  # the client may have left
            self._socket.send(_OK * answers)

    def _requests(self, data: bytes) -> int:
        """Take whole requests out of the bytes so far; return their number."""
        count = start = 0
        while (end := data.find(_END, start)) >= 0:
            head = data[start : end + 2].lower()
            at = head.find(_SIZE)
            body, size = end + 4, int(head[at + len(_SIZE) : head.find(b"\r\n", at)]) if at >= 0 else 0
            if len(data) < body + size:
                break
            self._seen.take(head, data[body : body + size])
            start = body + size
            count += 1
        self._rest = data[start:]
        return count


class Server:
    """All listening sockets and connections, on one epoll."""

    def __init__(self, seen: Seen) -> None:
        self._seen = seen
        self._epoll = select.epoll()
        self._ready: dict[int, Callable[[], bool]] = {}

    def listen_everywhere(self, contexts: Mapping[str, ssl.SSLContext | None]) -> int:
        """Listen at all addresses, each with its TLS context or in plain text; return the port that is free at all of them."""
        listeners = _listeners(list(contexts))
        for address, listener in listeners.items():
            listener.setblocking(False)  # noqa: FBT003 - the standard library's signature
            self._watch(listener, partial(self._accept, listener, contexts[address]))
        port: int = next(iter(listeners.values())).getsockname()[1]
        return port

    def run(self) -> None:
        """Serve until standard input closes."""
        self._epoll.register(sys.stdin.fileno(), select.EPOLLIN)
        while True:
            for number, _ in self._epoll.poll(self._seen.behaviour.answer_due()):
                if number != sys.stdin.fileno():
                    if not self._ready[number]():
                        del self._ready[number]
                elif line := sys.stdin.readline():
                    say(self._seen.told(line.strip()))
                else:
                    return

    def _watch(self, watched: socket.socket, ready: Callable[[], bool]) -> None:
        self._ready[watched.fileno()] = ready
        self._epoll.register(watched.fileno(), select.EPOLLIN)

    def _accept(self, listener: socket.socket, context: ssl.SSLContext | None) -> bool:
        try:
            connected, _ = listener.accept()
        except OSError:
            return True
        connected.setblocking(False)  # noqa: FBT003 - the standard library's signature
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if context is not None:
            connected = context.wrap_socket(connected, server_side=True, do_handshake_on_connect=False)
        self._watch(connected, Peer(connected, self._seen).ready)
        return True


def _listeners(at: Sequence[str], tries: int = 20) -> dict[str, socket.socket]:
    """Return a listening socket at each address, all on one port; take another port if somebody has this one at one of them."""
    listeners: dict[str, socket.socket] = {}
    port = 0
    try:
        for address in at:
            listeners[address] = socket.create_server((address, port), backlog=_BACKLOG)
            port = listeners[address].getsockname()[1]
    except OSError as error:
        for listener in listeners.values():
            listener.close()
        if error.errno != errno.EADDRINUSE or tries == 1:
            raise
        return _listeners(at, tries - 1)
    return listeners


def say(what: object) -> None:
    """Answer a line."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def main(core: int, folder: Path, count: int) -> None:
    """Serve at `count` addresses; print the ports, and put the root of the certificates into the folder."""
    os.sched_setaffinity(0, {core})
    server, authority = Server(Seen()), Authority(folder)
    found = addresses(count)
    ports = {
        "http": server.listen_everywhere(dict.fromkeys(found)),
        "https": server.listen_everywhere({address: authority.server(address) for address in found}),
    }
    say({"roots": str(authority.file), **ports})
    server.run()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
