"""Sink lookup: resolve the host names in a subscription's URLs and check their addresses, before the subscription is stored.

subscription_server → [sink_lookup] → validation

Law 1: the check warns consumers early and guarantees nothing: each address is checked again when it is dialled.
Law 2: a lookup has a deadline. If the addresses of a name are not known by then, the name passes.
Law 3: the number of lookups at once is bounded, in all and for each consumer, so that names that hang do not block other consumers.
"""

import asyncio
import contextlib
import functools
import socket
import threading
from collections.abc import Callable, Iterable, Sequence

from services.egress.policy import EgressPolicy
from services.egress.urls import parse_url
from services.runtime.fair_semaphore import FairSemaphore, PermitRequest, ShareNow
from services.runtime.logs import logger

LOOKUP_S = 2.0
_OWNER_WAITING_MAX = 64

Resolve = Callable[[str], Sequence[str]]


def system_addresses(host: str) -> list[str]:
    """Return the addresses of a name from the system's resolver, which blocks; raises OSError if there are none."""
    return [str(address[0]) for *_, address in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]


class SinkLookup:
    """Looks names up and checks their addresses."""

    def __init__(self, policy: EgressPolicy, share: ShareNow, resolve: Resolve = system_addresses, timeout_s: float = LOOKUP_S) -> None:
        """Take `resolve`, which blocks a thread of its own until a name's addresses are known, and the deadline of each lookup.

        A lookup counts in its caller's `share` until the resolver returns, even after the deadline.
        """
        self._policy = policy
        self._permits = FairSemaphore(share, owner_waiting_max=_OWNER_WAITING_MAX)
        self._resolve = resolve
        self._timeout_s = timeout_s

    async def refusals(self, urls: Iterable[str], caller: str) -> dict[str, str]:
        """Return the URLs whose names resolve to a forbidden address, each with the reason. The lookups count in the caller's share."""
        hosts = {url: host for url in urls if (host := self._name(url)) is not None}
        whys = await asyncio.gather(*(self._refusal(host, caller) for host in hosts.values()))
        return {url: why for url, why in zip(hosts, whys, strict=True) if why is not None}

    def _name(self, url: str) -> str | None:
        """Return the name to look up; None for an address, and for a URL that the policy refuses by its text alone."""
        if self._policy.check_url(url) is not None:
            return None
        host = parse_url(url).host
        return host if isinstance(host, str) else None

    async def _refusal(self, host: str, caller: str) -> str | None:
        found: asyncio.Future[Sequence[str]] = asyncio.get_running_loop().create_future()
        permit_request = self._permits.enter(caller, functools.partial(self._look_up, host, found))
        if permit_request is None:
            return None
        try:
            async with asyncio.timeout(self._timeout_s):
                addresses = await found
        except (OSError, UnicodeError):
            # The name does not resolve now, but may later, so it passes. TimeoutError is an OSError.
            return None
        finally:
            if not permit_request.holds_permit:
                permit_request.leave()
        why = self._policy.check_addresses(addresses)
        if why is not None:
            logger().info("sink.refused", host=host, why=self._policy.explain_addresses(addresses) or why)
        return why

    def _look_up(self, host: str, found: asyncio.Future[Sequence[str]], permit_request: PermitRequest) -> None:
        """Look a name up on a thread that ends with the process, since the system's resolver cannot be interrupted."""
        loop = asyncio.get_running_loop()

        def finish(addresses: Sequence[str], error: Exception | None) -> None:
            permit_request.leave()
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
            except Exception as error:  # noqa: BLE001 - passed on to the caller that waits
                failed = error
            # The event loop may have ended in the meantime.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(finish, addresses, failed)

        threading.Thread(target=run, name="sink-lookup", daemon=True).start()
