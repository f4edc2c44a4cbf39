"""Read leases: for how long those who keep a copy of the subscriptions may rely on it without asking.

store → [read leases] ─gRPC─▶ route

Law 1: while a lease runs, no caller hears of a change before the lease's holder has confirmed that it knows of it.
Law 2: nobody is waited for beyond the end of the lease, and who is behind gets none; what may have been granted before this process
began ends as if granted just then.
Source: C. Gray and D. Cheriton, "Leases", SOSP 1989.
"""

import asyncio
import contextlib
from dataclasses import dataclass

LEASE_MAX_S = 0.5
# The holder counts from when it asked, by a clock of its own, which may go slower than ours by so much in this time.
_MARGIN_S = 0.05


@dataclass(slots=True)
class _Lease:
    reached: int
    until: float


class ReadLeases:
    """All leases, by their holders; used on one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, may_be_others: bool) -> None:
        """`may_be_others` says that a process before this one may have granted some."""
        self._loop = loop
        self._leases: dict[object, _Lease] = {}
        self._others_until = loop.time() + LEASE_MAX_S + _MARGIN_S if may_be_others else 0.0
        self._confirmed = asyncio.Event()

    def grant(self, holder: object, reached: int, wanted_s: float, revision: int) -> float:
        """Let a holder that knows all changes up to `reached` rely on that, if these are all that there are, which `revision` says.

        Returns for how many seconds from when it asked; 0: not at all.
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
        """Take note that a holder knows all changes up to a revision."""
        lease = self._leases.get(holder)
        if lease is not None and lease.reached < reached:
            lease.reached = reached
            self._wake()

    def release(self, holder: object) -> None:
        """End a holder's lease; it relies on nothing any more."""
        if self._leases.pop(holder, None) is not None:
            self._wake()

    async def known(self, revision: int) -> None:
        """Wait until all who have a lease know the changes up to a revision."""
        while (wait_s := self._ends_at(revision) - self._loop.time()) > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._confirmed.wait()

    def _ends_at(self, revision: int) -> float:
        """Return when the last lease ends of those whose holders do not know that revision."""
        return max([self._others_until, *(lease.until for lease in self._leases.values() if lease.reached < revision)])

    def _wake(self) -> None:
        confirmed, self._confirmed = self._confirmed, asyncio.Event()
        confirmed.set()
