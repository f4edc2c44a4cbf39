"""Resolver: looks up a host name's addresses off the event loop, judges all of them together, and caches the verdict.

http → [resolver: single_flight] → pool

Law 1: a name may be called only if every one of its addresses may be dialled.
Law 2: a result is used for `kept_s` seconds, a failure for at most 5 s, whatever the TTL of the DNS record.
Law 3: a name server that does not answer delays lookups of the consumer that asked, and of no other consumer.
"""

import asyncio
import contextlib
import itertools
import queue
import socket
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from services.delivery.transport.protocol import Outcome
from services.delivery.transport.single_flight import SingleFlight
from services.runtime.fair_semaphore import FairSemaphore, ShareNow

Lookup = Callable[[str], Sequence[str]]
"""Returns the addresses of a name, at least one; raises `OSError` if the name has none. It may block."""


class Judge(Protocol):
    """Decides whether a name may be called; `EgressPolicy` is one."""

    def check_addresses(self, addresses: Sequence[str], /) -> str | None:
        """Return None if every address may be dialled; else why not, in a sentence for the consumer."""
        ...

    def explain_addresses(self, addresses: Sequence[str], /) -> str:
        """Return for the log which addresses may not be dialled, and why."""
        ...


FAILURE_KEPT_S = 5.0
ADDRESSES_KEPT_MAX = 16
"""How many addresses of a name are kept; the policy judges all of them, kept or not."""
_NAMES_MAX = 16_384
# More than the requests that one consumer can have under way.
_OWNER_WAITING_MAX = 2048


class Resolved(NamedTuple):
    """The result of a lookup: the addresses that may be dialled, in the order to try them, or the reason why no address may be dialled."""

    addresses: tuple[str, ...]
    failure: Outcome | None = None
    error: str = ""


class Resolver:
    """A cache of lookups. Belongs to one event loop; only `lookup` and the policy's verdict run in other threads."""

    def __init__(self, lookup: Lookup, policy: Judge, *, timeout_s: float, kept_s: float, share: ShareNow) -> None:
        """`timeout_s` bounds how long a caller waits for a lookup; `kept_s` is how long a result is used.

        A lookup counts in its owner's `share` until `lookup` returns, also after its callers were told that it takes too long.
        """
        self._kept_s = kept_s
        self._lookup = lookup
        self._policy = policy
        self._loop = asyncio.get_running_loop()
        self._found: OrderedDict[str, tuple[Resolved, float]] = OrderedDict()
        self._threads: list[_Threads] = []
        # Two queues: names that resolved before do not wait behind names whose lookup may hang.
        self._proven, self._unproven = (self._queue(share, timeout_s) for _ in range(2))

    def cached(self, name: str) -> Resolved | None:
        """Return a name's cached result. If it returns None, call `resolve`."""
        entry = self._found.get(name)
        if entry is None or entry[1] <= self._loop.time():
            return None
        self._found.move_to_end(name)
        return entry[0]

    def resolve(self, name: str, owner: str, then: Callable[[Resolved], None]) -> None:
        """Look a name up for an owner; call `then` once, later, on the event loop."""
        lookups, other = self._unproven, self._proven
        if name in other or (name not in lookups and self._is_proven(name)):
            lookups = other
        lookups.ask(name, owner, then)

    def prefer(self, name: str, address: str) -> None:
        """Try an address first from now on: it was reached, and an address before it was not."""
        entry = self._found.get(name)
        if entry is not None and address in entry[0].addresses:
            self._found[name] = (_with_first(entry[0], address), entry[1])

    def defer(self, name: str, addresses: Sequence[str]) -> None:
        """Try addresses last from now on: they could not be reached."""
        entry = self._found.get(name)
        if entry is not None and entry[0].failure is None:
            in_order = sorted(entry[0].addresses, key=lambda each: each in addresses)
            self._found[name] = (Resolved(tuple(in_order)), entry[1])

    def forget(self) -> None:
        """Drop every cached result, so that each name is looked up again when it is next needed."""
        self._found.clear()

    def close(self) -> None:
        """Stop waiting for lookups; each waiting caller is told that the service stopped."""
        for lookups in (self._proven, self._unproven):
            lookups.close(_STOPPED)
        for threads in self._threads:
            threads.close()

    def _is_proven(self, name: str) -> bool:
        entry = self._found.get(name)
        return entry is not None and entry[0].failure is None

    def _queue(self, share: ShareNow, timeout_s: float) -> SingleFlight[str, Resolved]:
        permits, threads = FairSemaphore(share, owner_waiting_max=_OWNER_WAITING_MAX), _Threads()
        self._threads.append(threads)

        def run(name: str, _owner: str) -> None:
            threads.put(lambda: self._look_up(name, lookups))

        lookups = SingleFlight[str, Resolved](permits, run, timeout_s=timeout_s, too_late=_TOO_LATE, too_many=_TOO_MANY)
        return lookups

    def _look_up(self, name: str, lookups: SingleFlight[str, Resolved]) -> None:
        try:
            addresses = tuple(dict.fromkeys(self._lookup(name)))
        except (OSError, ValueError):
            found = Resolved((), Outcome.DNS, "the server's name could not be resolved")
        except Exception as error:  # noqa: BLE001 - a bug in `lookup` fails this lookup only; its callers must be told
            found = Resolved((), Outcome.DNS, f"the server's name could not be resolved ({type(error).__name__})")
        else:
            why = self._policy.check_addresses(addresses)
            found = Resolved(_mixed(addresses)) if why is None else Resolved((), Outcome.BLOCKED, why)
        with contextlib.suppress(RuntimeError):  # the event loop has ended, and with it every caller
            self._loop.call_soon_threadsafe(self._arrived, name, found, lookups)

    def _arrived(self, name: str, found: Resolved, lookups: SingleFlight[str, Resolved]) -> None:
        before = self._found.pop(name, None)
        # The order changes from one lookup to the next. Keep the first address first, so that its connections stay in use.
        if before is not None and before[0].addresses and before[0].addresses[0] in found.addresses:
            found = _with_first(found, before[0].addresses[0])
        found = found._replace(addresses=found.addresses[:ADDRESSES_KEPT_MAX])
        kept_s = self._kept_s if found.failure is None else min(self._kept_s, FAILURE_KEPT_S)
        self._found[name] = (found, self._loop.time() + kept_s)
        if len(self._found) > _NAMES_MAX:
            self._found.popitem(last=False)
        lookups.arrived(name, found)


_STOPPED = Resolved((), Outcome.RESET, "the service stopped before the request was sent")
_TOO_LATE = Resolved((), Outcome.DNS, "the server's name could not be resolved in time")
_TOO_MANY = Resolved((), Outcome.DNS, "too many of this consumer's names wait to be resolved")


def system_lookup(name: str) -> list[str]:
    """Return the addresses that this machine's resolver gives for a name, in the resolver's order of preference."""
    return [str(info[4][0]) for info in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)]


def _with_first(found: Resolved, address: str) -> Resolved:
    return Resolved((address, *(each for each in found.addresses if each != address)))


def _mixed(addresses: Sequence[str]) -> tuple[str, ...]:
    """Return addresses with IPv4 and IPv6 alternating (RFC 8305, section 4): if one family is down, the other is tried soon."""
    first = ":" in addresses[0] if addresses else False
    families = [each for each in addresses if (":" in each) is first], [each for each in addresses if (":" in each) is not first]
    return tuple(each for pair in itertools.zip_longest(*families) for each in pair if each is not None)


class _Threads:
    """A few daemon threads, started on demand. They end with the process, because a lookup cannot be interrupted."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()  # bounded: by the permits for lookups
        self._threads = 0
        self._free = threading.Semaphore(0)

    def put(self, job: Callable[[], None]) -> None:
        """Run a job in one of the threads."""
        if not self._free.acquire(blocking=False):
            self._threads += 1
            threading.Thread(target=self._run, name="resolver", daemon=True).start()
        self._jobs.put(job)

    def close(self) -> None:
        """End each thread after its present job."""
        for _ in range(self._threads):
            self._jobs.put(None)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
            self._free.release()
