"""Names: which addresses a host's name stands for, looked up off the event loop and judged as a whole.

http → [names] → pool

Law 1: a name may be called only if every one of its addresses may.
Law 2: what was found is used for a few seconds, whatever lifetime the name's owner gave it.
Law 3: a name server that does not answer holds up nobody but those who ask for its names.
"""

import asyncio
import contextlib
import queue
import socket
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from services.delivery.model import Outcome
from services.runtime.logs import logger

Lookup = Callable[[str], Sequence[str]]
"""Returns the addresses of a name, at least one; raises `OSError` where there is none. It may block."""


class Judge(Protocol):
    """Who says whether a name may be called, as `EgressPolicy` does."""

    def check_addresses(self, addresses: Sequence[str], /) -> str | None:
        """Return None where it may by all of its addresses; else why not, in a sentence for the consumer."""
        ...

    def explain_addresses(self, addresses: Sequence[str], /) -> str:
        """Return for the log which addresses may not be dialled, and why."""
        ...


FAILURE_KEPT_S = 5.0
_NAMES_MAX = 16_384
_THREADS = 8


class Found(NamedTuple):
    """What a name led to: addresses that may be dialled, the one to try first in front, or why there is none."""

    addresses: tuple[str, ...]
    failure: Outcome | None = None
    error: str = ""


@dataclass(slots=True, eq=False)
class _Asking:
    """A lookup under way."""

    waiting: list[Callable[[Found], None]] = field(default_factory=list)
    timer: asyncio.TimerHandle | None = None
    late: bool = False
    """Whether those who waited have been told that it takes too long."""


class Names:
    """A cache of names. Belongs to one event loop; `lookup` alone is called elsewhere."""

    def __init__(self, lookup: Lookup, policy: Judge, *, timeout_s: float, kept_s: float) -> None:
        """`timeout_s` is how long anybody waits for a lookup, `kept_s` how long what it found is used."""
        self._kept_s = kept_s
        self._lookup = lookup
        self._policy = policy
        self._timeout_s = timeout_s
        self._loop = asyncio.get_running_loop()
        self._found: OrderedDict[str, tuple[Found, float]] = OrderedDict()
        self._asking: dict[str, _Asking] = {}
        # Names that were found before do not wait behind those that may hang.
        self._proven, self._unproven = _Threads(_THREADS), _Threads(_THREADS)

    def known(self, name: str) -> Found | None:
        """Return what is known of a name, None where it has to be asked for."""
        entry = self._found.get(name)
        if entry is None or entry[1] <= self._loop.time():
            return None
        self._found.move_to_end(name)
        return entry[0]

    def ask(self, name: str, then: Callable[[Found], None]) -> None:
        """Look a name up; `then` is called once, later, on the event loop."""
        asking = self._asking.get(name)
        if asking is None:
            asking = self._asking[name] = _Asking()
            asking.timer = self._loop.call_later(self._timeout_s, self._is_late, asking, _TOO_LATE)
            entry = self._found.get(name)
            proven = entry is not None and entry[0].failure is None
            (self._proven if proven else self._unproven).put(lambda: self._look_up(name))
        if asking.late:
            self._loop.call_soon(then, _TOO_LATE)
        else:
            asking.waiting.append(then)

    def prefer(self, name: str, address: str) -> None:
        """Have an address tried first from now on: one before it could not be reached."""
        entry = self._found.get(name)
        if entry is not None and address in entry[0].addresses:
            self._found[name] = (_with_first(entry[0], address), entry[1])

    def close(self) -> None:
        """Wait for no name any more: those who ask are told so."""
        for asking in self._asking.values():
            if asking.timer is not None:
                asking.timer.cancel()
            self._is_late(asking, _STOPPED)
        self._proven.close()
        self._unproven.close()

    def _look_up(self, name: str) -> None:
        try:
            addresses = tuple(dict.fromkeys(self._lookup(name)))
        except (OSError, ValueError):
            found = Found((), Outcome.DNS, "the endpoint's name could not be resolved")
        except Exception as error:  # noqa: BLE001 - a fault of the lookup's own ends this one; those who ask must hear of it
            found = Found((), Outcome.DNS, f"the endpoint's name could not be resolved ({type(error).__name__})")
        else:
            why = self._policy.check_addresses(addresses)
            found = Found(addresses) if why is None else Found((), Outcome.BLOCKED, why)
            if why is not None:
                logger().info("sink.refused", host=name, why=self._policy.explain_addresses(addresses) or why)
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile, and with it all who asked
            self._loop.call_soon_threadsafe(self._arrived, name, found)

    def _arrived(self, name: str, found: Found) -> None:
        asking = self._asking.pop(name)
        if asking.timer is not None:
            asking.timer.cancel()
        before = self._found.pop(name, None)
        # The order of answers changes from one lookup to the next; connections to the address used so far are kept.
        if before is not None and before[0].addresses and before[0].addresses[0] in found.addresses:
            found = _with_first(found, before[0].addresses[0])
        kept_s = self._kept_s if found.failure is None else min(self._kept_s, FAILURE_KEPT_S)
        self._found[name] = (found, self._loop.time() + kept_s)
        if len(self._found) > _NAMES_MAX:
            self._found.popitem(last=False)
        for then in asking.waiting:
            then(found)

    @staticmethod
    def _is_late(asking: _Asking, found: Found) -> None:
        asking.late = True
        waiting, asking.waiting = asking.waiting, []
        for then in waiting:
            then(found)


_STOPPED = Found((), Outcome.RESET, "the service stopped before the request was sent")
_TOO_LATE = Found((), Outcome.DNS, "the endpoint's name could not be resolved in time")


def system_lookup(name: str) -> list[str]:
    """Return the addresses that this machine's resolver gives for a name, in the order in which it would use them."""
    return [str(info[4][0]) for info in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)]


def _with_first(found: Found, address: str) -> Found:
    return Found((address, *(each for each in found.addresses if each != address)))


class _Threads:
    """A few threads, started as they are needed, that die with the process: a lookup cannot be interrupted."""

    def __init__(self, threads_max: int) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._threads_max = threads_max
        self._threads = 0
        self._free = threading.Semaphore(0)

    def put(self, job: Callable[[], None]) -> None:
        """Run a job in one of the threads."""
        if not self._free.acquire(blocking=False) and self._threads < self._threads_max:
            self._threads += 1
            threading.Thread(target=self._run, name="names", daemon=True).start()
        self._jobs.put(job)

    def close(self) -> None:
        """End the threads, each after what it is at."""
        for _ in range(self._threads):
            self._jobs.put(None)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
            self._free.release()
