"""Read leases: for how long a replica of the subscriptions may be relied on without asking the registry.

store, subscription_server → [read_leases] ─gRPC─▶ delivery's read barrier

Law 1: while a lease runs, no caller learns of a change before the holder of the lease has confirmed the change.
Law 2: no caller waits beyond the end of a lease, and a holder that is behind gets no lease. A lease that an earlier process may have
granted ends as if it had been granted when this process began.
Source: C. Gray and D. Cheriton, "Leases", SOSP 1989.
"""

import asyncio
import contextlib
from dataclasses import dataclass

LEASE_MAX_S = 0.5
# The holder counts from the moment of its question, by its own clock. During a lease, its clock may fall behind ours by so much.
_MARGIN_S = 0.05


@dataclass(slots=True)
class _Lease:
    reached: int
    until: float


class ReadLeases:
    """All leases, by their holders; for use on one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, earlier_leases_possible: bool) -> None:
        """Begin without leases; `earlier_leases_possible`: an earlier process may have granted leases."""
        self._loop = loop
        self._leases: dict[object, _Lease] = {}
        self._earlier_leases_until = loop.time() + LEASE_MAX_S + _MARGIN_S if earlier_leases_possible else 0.0
        self._confirmed = asyncio.Event()

    def grant(self, holder: object, reached: int, wanted_s: float, revision: int) -> float:
        """Grant a lease to a holder that knows all changes up to `reached`, if that is not before the latest `revision`.

        Returns the length of the lease in seconds, counted from the moment of the question; 0: no lease.
        """
        now = self._loop.time()
        self._leases = {other: lease for other, lease in self._leases.items() if lease.until > now}
        granted_s = max(0.0, min(wanted_s, LEASE_MAX_S)) if reached >= revision else 0.0
        if granted_s and holder not in self._leases:
            self._leases[holder] = _Lease(reached, 0.0)
        self.confirm(holder, reached)
        if granted_s:
            lease = self._leases[holder]
            lease.until = max(lease.until, now + granted_s + _MARGIN_S)
        return granted_s

    def confirm(self, holder: object, reached: int) -> None:
        """Note that a holder knows all changes up to a revision."""
        lease = self._leases.get(holder)
        if lease is not None and lease.reached < reached:
            lease.reached = reached
            self._wake()

    def release(self, holder: object) -> None:
        """End a holder's lease, since the holder no longer relies on it."""
        if self._leases.pop(holder, None) is not None:
            self._wake()

    async def wait_until_confirmed(self, revision: int) -> None:
        """Wait until every holder of a lease knows all changes up to a revision, or its lease has ended."""
        while (wait_s := self._ends_at(revision) - self._loop.time()) > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._confirmed.wait()

    def _ends_at(self, revision: int) -> float:
        """Return when the last lease ends whose holder does not know that revision."""
        return max([self._earlier_leases_until, *(lease.until for lease in self._leases.values() if lease.reached < revision)])

    def _wake(self) -> None:
        confirmed, self._confirmed = self._confirmed, asyncio.Event()
        confirmed.set()
