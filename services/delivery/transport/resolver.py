"""Names: which addresses a host's name stands for, looked up off the event loop and judged as a whole.

http → [names: single_flight] → pool

Law 1: a name may be called only if every one of its addresses may.
Law 2: what was found is used for a few seconds, whatever lifetime the name's owner gave it.
Law 3: a name server that does not answer holds up the names of its own consumer, and nobody else's.
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
ADDRESSES_KEPT_MAX = 16
"""How many addresses of a name are kept; all of them are judged."""
_NAMES_MAX = 16_384
# As many requests of one consumer as can be under way, and then some.
_OWNER_WAITING_MAX = 2048


class Found(NamedTuple):
    """What a name led to: addresses that may be dialled, the one to try first in front, or why there is none."""

    addresses: tuple[str, ...]
    failure: Outcome | None = None
    error: str = ""


class Names:
    """A cache of names. Belongs to one event loop; `lookup` alone is called elsewhere."""

    def __init__(self, lookup: Lookup, policy: Judge, *, timeout_s: float, kept_s: float, share: ShareNow) -> None:
        """`timeout_s` is how long anybody waits for a lookup, `kept_s` how long what it found is used.

        A lookup counts in its owner's `share` until the resolver returns, also after those who asked were told that it takes too long.
        """
        self._kept_s = kept_s
        self._lookup = lookup
        self._policy = policy
        self._loop = asyncio.get_running_loop()
        self._found: OrderedDict[str, tuple[Found, float]] = OrderedDict()
        self._threads: list[_Threads] = []
        # Names that were found before do not wait behind those that may hang.
        self._proven, self._unproven = (self._flights(share, timeout_s) for _ in range(2))

    def known(self, name: str) -> Found | None:
        """Return what is known of a name, None where it has to be asked for."""
        entry = self._found.get(name)
        if entry is None or entry[1] <= self._loop.time():
            return None
        self._found.move_to_end(name)
        return entry[0]

    def ask(self, name: str, owner: str, then: Callable[[Found], None]) -> None:
        """Look a name up for an owner; `then` is called once, later, on the event loop."""
        flights, other = self._unproven, self._proven
        if name in other or (name not in flights and self._is_proven(name)):
            flights = other
        flights.ask(name, owner, then)

    def prefer(self, name: str, address: str) -> None:
        """Have an address tried first from now on: one before it could not be reached."""
        entry = self._found.get(name)
        if entry is not None and address in entry[0].addresses:
            self._found[name] = (_with_first(entry[0], address), entry[1])

    def defer(self, name: str, addresses: Sequence[str]) -> None:
        """Have addresses tried last from now on: they could not be reached."""
        entry = self._found.get(name)
        if entry is not None and entry[0].failure is None:
            in_order = sorted(entry[0].addresses, key=lambda each: each in addresses)
            self._found[name] = (Found(tuple(in_order)), entry[1])

    def forget(self) -> None:
        """Look every name up anew when it is next asked for."""
        self._found.clear()

    def close(self) -> None:
        """Wait for no name any more: those who ask are told so."""
        for flights in (self._proven, self._unproven):
            flights.close(_STOPPED)
        for threads in self._threads:
            threads.close()

    def _is_proven(self, name: str) -> bool:
        entry = self._found.get(name)
        return entry is not None and entry[0].failure is None

    def _flights(self, share: ShareNow, timeout_s: float) -> SingleFlight[str, Found]:
        permits, threads = FairSemaphore(share, owner_waiting_max=_OWNER_WAITING_MAX), _Threads()
        self._threads.append(threads)

        def run(name: str, _owner: str) -> None:
            threads.put(lambda: self._look_up(name, flights))

        flights = SingleFlight[str, Found](permits, run, timeout_s=timeout_s, too_late=_TOO_LATE, too_many=_TOO_MANY)
        return flights

    def _look_up(self, name: str, flights: SingleFlight[str, Found]) -> None:
        try:
            addresses = tuple(dict.fromkeys(self._lookup(name)))
        except (OSError, ValueError):
            found = Found((), Outcome.DNS, "the endpoint's name could not be resolved")
        except Exception as error:  # noqa: BLE001 - a fault of the lookup's own ends this one; those who ask must hear of it
            found = Found((), Outcome.DNS, f"the endpoint's name could not be resolved ({type(error).__name__})")
        else:
            why = self._policy.check_addresses(addresses)
            found = Found(_mixed(addresses)) if why is None else Found((), Outcome.BLOCKED, why)
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile, and with it all who asked
            self._loop.call_soon_threadsafe(self._arrived, name, found, flights)

    def _arrived(self, name: str, found: Found, flights: SingleFlight[str, Found]) -> None:
        before = self._found.pop(name, None)
        # The order of answers changes from one lookup to the next; connections to the address used so far are kept.
        if before is not None and before[0].addresses and before[0].addresses[0] in found.addresses:
            found = _with_first(found, before[0].addresses[0])
        found = found._replace(addresses=found.addresses[:ADDRESSES_KEPT_MAX])
        kept_s = self._kept_s if found.failure is None else min(self._kept_s, FAILURE_KEPT_S)
        self._found[name] = (found, self._loop.time() + kept_s)
        if len(self._found) > _NAMES_MAX:
            self._found.popitem(last=False)
        flights.arrived(name, found)


_STOPPED = Found((), Outcome.RESET, "the service stopped before the request was sent")
_TOO_LATE = Found((), Outcome.DNS, "the endpoint's name could not be resolved in time")
_TOO_MANY = Found((), Outcome.DNS, "too many names of this consumer's endpoints wait to be resolved")


def system_lookup(name: str) -> list[str]:
    """Return the addresses that this machine's resolver gives for a name, in the order in which it would use them."""
    return [str(info[4][0]) for info in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)]


def _with_first(found: Found, address: str) -> Found:
    return Found((address, *(each for each in found.addresses if each != address)))


def _mixed(addresses: Sequence[str]) -> tuple[str, ...]:
    """Return addresses with both families in turn (RFC 8305, section 4): if one family is away, the other is tried soon."""
    first = ":" in addresses[0] if addresses else False
    families = [each for each in addresses if (":" in each) is first], [each for each in addresses if (":" in each) is not first]
    return tuple(each for pair in itertools.zip_longest(*families) for each in pair if each is not None)


class _Threads:
    """A few threads, started as they are needed, that die with the process: a lookup cannot be interrupted."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._threads = 0
        self._free = threading.Semaphore(0)

    def put(self, job: Callable[[], None]) -> None:
        """Run a job in one of the threads."""
        if not self._free.acquire(blocking=False):
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
