"""Lookup: where the names in URLs lead, before a subscription with them is kept.

server → [lookup] → validation

Law 1: this spares consumers a surprise and promises nothing: each address is judged again when it is dialled.
Law 2: a lookup takes no longer than its time, and so many run at once; a name whose addresses are not known by then passes.
"""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterable, Sequence

from services.egress.policy import EgressPolicy
from services.egress.urls import parse_url
from services.runtime.logs import logger

LOOKUP_S = 2.0
LOOKUPS_MAX = 32

Resolve = Callable[[str], Sequence[str]]


def system_addresses(host: str) -> list[str]:
    """Return the addresses of a name as the system's resolver tells, waiting for it; raises OSError where there are none."""
    return [str(address[0]) for *_, address in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]


class Lookups:
    """Looks names up and judges what they lead to."""

    def __init__(self, policy: EgressPolicy, resolve: Resolve = system_addresses, timeout_s: float = LOOKUP_S) -> None:
        """Take `resolve`, which waits for a name's addresses on a thread of its own, and how long it is waited for."""
        self._policy = policy
        self._resolve = resolve
        self._timeout_s = timeout_s
        self._under_way = 0

    async def refusals(self, urls: Iterable[str]) -> dict[str, str]:
        """Return those of the URLs whose names lead to a forbidden address, each with the reason, in a sentence."""
        hosts = {url: host for url in urls if (host := self._name(url)) is not None}
        whys = await asyncio.gather(*(self._refusal(host) for host in hosts.values()))
        return {url: why for url, why in zip(hosts, whys, strict=True) if why is not None}

    def _name(self, url: str) -> str | None:
        """Return the name to look up; None for an address, and for a URL that is refused by its text alone."""
        if self._policy.check_url(url) is not None:
            return None
        host = parse_url(url).host
        return host if isinstance(host, str) else None

    async def _refusal(self, host: str) -> str | None:
        if self._under_way >= LOOKUPS_MAX:
            return None
        try:
            async with asyncio.timeout(self._timeout_s):
                addresses = await self._addresses(host)
        except (OSError, UnicodeError):
            # What a name will lead to once it is known, nobody can say now. TimeoutError is an OSError.
            return None
        why = self._policy.check_addresses(addresses)
        if why is not None:
            logger().info("sink.refused", host=host, why=self._policy.explain_addresses(addresses) or why)
        return why

    def _addresses(self, host: str) -> asyncio.Future[Sequence[str]]:
        """Look a name up on a thread that ends with the process, since the system's resolver cannot be interrupted."""
        loop = asyncio.get_running_loop()
        found: asyncio.Future[Sequence[str]] = loop.create_future()

        def finish(addresses: Sequence[str], error: Exception | None) -> None:
            self._under_way -= 1
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

        self._under_way += 1
        threading.Thread(target=run, name="sink-lookup", daemon=True).start()
        return found
