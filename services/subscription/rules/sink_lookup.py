"""Lookup: where the names in URLs lead, before a subscription with them is kept.

server → [lookup] → validation

Law 1: this spares consumers a surprise and promises nothing: each address is judged again when it is dialled.
Law 2: a lookup takes no longer than its time. A name whose addresses are not known by then passes.
Law 3: so many run at once, and so many for one consumer: names that hang keep nobody else's from being judged.
"""

import asyncio
import contextlib
import functools
import socket
import threading
from collections.abc import Callable, Iterable, Sequence

from services.egress.policy import EgressPolicy
from services.egress.urls import parse_url
from services.runtime.fair_semaphore import FairSemaphore, Place, ShareNow
from services.runtime.logs import logger

LOOKUP_S = 2.0
_OWNER_WAITING_MAX = 64

Resolve = Callable[[str], Sequence[str]]


def system_addresses(host: str) -> list[str]:
    """Return the addresses of a name as the system's resolver tells, waiting for it; raises OSError where there are none."""
    return [str(address[0]) for *_, address in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]


class Lookups:
    """Looks names up and judges what they lead to."""

    def __init__(self, policy: EgressPolicy, share: ShareNow, resolve: Resolve = system_addresses, timeout_s: float = LOOKUP_S) -> None:
        """Take `resolve`, which waits for a name's addresses on a thread of its own, and how long it is waited for.

        A lookup counts in its consumer's `share` until the resolver returns.
        """
        self._policy = policy
        self._permits = FairSemaphore(share, owner_waiting_max=_OWNER_WAITING_MAX)
        self._resolve = resolve
        self._timeout_s = timeout_s

    async def refusals(self, urls: Iterable[str], consumer_id: str) -> dict[str, str]:
        """Return those of a consumer's URLs whose names lead to a forbidden address, each with the reason, in a sentence."""
        hosts = {url: host for url in urls if (host := self._name(url)) is not None}
        whys = await asyncio.gather(*(self._refusal(host, consumer_id) for host in hosts.values()))
        return {url: why for url, why in zip(hosts, whys, strict=True) if why is not None}

    def _name(self, url: str) -> str | None:
        """Return the name to look up; None for an address, and for a URL that is refused by its text alone."""
        if self._policy.check_url(url) is not None:
            return None
        host = parse_url(url).host
        return host if isinstance(host, str) else None

    async def _refusal(self, host: str, consumer_id: str) -> str | None:
        found: asyncio.Future[Sequence[str]] = asyncio.get_running_loop().create_future()
        place = self._permits.enter(consumer_id, functools.partial(self._look_up, host, found))
        if place is None:
            return None
        try:
            async with asyncio.timeout(self._timeout_s):
                addresses = await found
        except (OSError, UnicodeError):
            # What a name will lead to once it is known, nobody can say now. TimeoutError is an OSError.
            return None
        finally:
            if not place.holds_permit:
                place.leave()
        why = self._policy.check_addresses(addresses)
        if why is not None:
            logger().info("sink.refused", host=host, why=self._policy.explain_addresses(addresses) or why)
        return why

    def _look_up(self, host: str, found: asyncio.Future[Sequence[str]], place: Place) -> None:
        """Look a name up on a thread that ends with the process, since the system's resolver cannot be interrupted."""
        loop = asyncio.get_running_loop()

        def finish(addresses: Sequence[str], error: Exception | None) -> None:
            place.leave()
            if found.done():
                return
            if error is None:
                found.set_result(addresses)
            else:
                found.set_exception(error)

        def run() -> None:
            addresses: Sequence[str] = ()
            failed = None
            try:
                addresses = self._resolve(host)
            except Exception as error:  # noqa: BLE001 - handed on to whoever waits
                failed = error
            # The loop may have ended in the meantime.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(finish, addresses, failed)

        threading.Thread(target=run, name="sink-lookup", daemon=True).start()
