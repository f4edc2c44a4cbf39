"""Fair semaphore: a bounded number of permits that owners share.

Law 1: an owner holds at most its share of the permits, and the number of its waiting requests is bounded.
Law 2: owners take turns. An owner below its share waits until permits come free, and never behind the whole queue of another owner.
Law 3: a request is started at most once, and gives its permit back once.
"""

import asyncio
import contextlib
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from typing import NamedTuple


class Share(NamedTuple):
    """How many permits there are in all, and how many one owner may hold at once."""

    permits: int
    owner_permits: int


ShareNow = Share | Callable[[], Share]
"""A share, or a function that returns the present share. The share may change at any time, for requests that begin from then on."""


class PermitRefusedError(Exception):
    """The owner already has its maximum of requests, or no permit came free in time."""


class PermitRequest:
    """One request for a permit: it waits, then holds a permit, then ends."""

    __slots__ = ("_semaphore", "_start", "holds_permit", "owner")

    def __init__(self, semaphore: "FairSemaphore", owner: str, start: "Callable[[PermitRequest], None]") -> None:
        """Wait for a permit; `FairSemaphore.enter` makes requests."""
        self._semaphore = semaphore
        self._start = start
        self.owner = owner
        self.holds_permit = False

    def begin(self) -> None:
        """Take the permit that the semaphore has set aside for this request."""
        self.holds_permit = True
        self._start(self)

    def leave(self) -> None:
        """Give the permit back, or stop waiting for one. A second call does nothing."""
        self._semaphore.leave(self)


class FairSemaphore:
    """Permits that owners share. An owner is any string. Use it in one event loop only."""

    def __init__(self, share: ShareNow, *, owner_waiting_max: int) -> None:
        """Let each owner have `owner_waiting_max` requests that wait, beyond its share."""
        self._share = share if callable(share) else lambda: share
        self._owner_waiting_max = owner_waiting_max
        self._held = 0
        self._owners: dict[str, _Owner] = {}
        self._round: deque[_Owner] = deque()  # bounded: each owner is in it once
        """The owners that have a waiting request and are below their share, each once."""
        self._serving = False

    def __len__(self) -> int:
        """Return how many entries about owners are held."""
        return max(len(self._owners), len(self._round))

    def enter(self, owner: str, start: Callable[[PermitRequest], None]) -> PermitRequest | None:
        """Ask for a permit. `start` is called once, with the request that holds the permit; if a permit is free, within this call.

        Returns the request, or None if the owner has too many requests already.
        """
        known = self._owners.get(owner)
        if known is None:
            known = self._owners[owner] = _Owner(owner)
        if known.held + len(known.waiting) >= min(self._share()) + self._owner_waiting_max:
            return None
        permit_request = PermitRequest(self, owner, start)
        known.waiting[permit_request] = None
        self._join_round(known)
        self._serve()
        return permit_request

    @contextlib.asynccontextmanager
    async def permit(self, owner: str, within_s: float) -> AsyncIterator[None]:
        """Hold a permit within the body; raises `PermitRefusedError` if the owner has too many requests, or none is free in time."""
        started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        permit_request = self.enter(owner, lambda _request: started.set_result(None))
        if permit_request is None:
            raise PermitRefusedError
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(within_s):
                    # Shielded: a request may still be started between the timeout and its `leave`.
                    await asyncio.shield(started)
            if not permit_request.holds_permit:
                raise PermitRefusedError
            yield
        finally:
            permit_request.leave()

    def leave(self, permit_request: PermitRequest) -> None:
        """See `PermitRequest.leave`."""
        owner = self._owners.get(permit_request.owner)
        if owner is None:
            return
        if permit_request.holds_permit:
            permit_request.holds_permit = False
            owner.held -= 1
            self._held -= 1
            self._join_round(owner)
            self._serve()
        else:
            owner.waiting.pop(permit_request, None)
        self._forget_if_idle(owner)

    def _join_round(self, owner: "_Owner") -> None:
        if not owner.in_round and owner.waiting and owner.held < min(self._share()):
            owner.in_round = True
            self._round.append(owner)

    def _forget_if_idle(self, owner: "_Owner") -> None:
        # An owner in the round stays known. Otherwise each request that comes and goes would add another entry to the round.
        if not owner.held and not owner.waiting and not owner.in_round:
            self._owners.pop(owner.name, None)

    def _serve(self) -> None:
        """Start requests while there are permits. A request may leave within its start, so a nested call returns at once."""
        if self._serving:
            return
        self._serving = True
        try:
            while self._round and self._held < self._share().permits:
                owner = self._round.popleft()
                owner.in_round = False
                if not owner.waiting or owner.held >= min(self._share()):
                    self._forget_if_idle(owner)  # its requests have left, or its share has shrunk
                    continue
                permit_request, _ = owner.waiting.popitem(last=False)
                owner.held += 1
                self._held += 1
                self._join_round(owner)
                permit_request.begin()
        finally:
            self._serving = False


class _Owner:
    """The requests of one owner."""

    __slots__ = ("held", "in_round", "name", "waiting")

    def __init__(self, name: str) -> None:
        self.name = name
        self.held = 0
        self.in_round = False
        self.waiting: OrderedDict[PermitRequest, None] = OrderedDict()
