"""Fair semaphore: a bounded number of permits that owners share.

Law 1: an owner holds at most its share of the permits, and the number of its waiting places is bounded.
Law 2: owners take turns. An owner below its share waits until permits come free, and never behind the whole queue of another owner.
Law 3: a place is started at most once, and gives its permit back once.
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
"""A share, or a function that returns the present share. The share may change at any time, for places that begin from then on."""


class PermitRefusedError(Exception):
    """The owner already has its maximum of places, or no permit came free in time."""


class Place:
    """One request for a permit: it waits, then holds a permit, then ends."""

    __slots__ = ("_semaphore", "_start", "holds_permit", "owner")

    def __init__(self, semaphore: "FairSemaphore", owner: str, start: "Callable[[Place], None]") -> None:
        """Wait for a permit; `FairSemaphore.enter` makes places."""
        self._semaphore = semaphore
        self._start = start
        self.owner = owner
        self.holds_permit = False

    def begin(self) -> None:
        """Take the permit that the semaphore has set aside for this place."""
        self.holds_permit = True
        self._start(self)

    def leave(self) -> None:
        """Give the permit back, or stop waiting for one. A second call does nothing."""
        self._semaphore.leave(self)


class FairSemaphore:
    """Permits that owners share. An owner is any string. Use it in one event loop only."""

    def __init__(self, share: ShareNow, *, owner_waiting_max: int) -> None:
        """Let each owner have `owner_waiting_max` places that wait, beyond its share."""
        self._share = share if callable(share) else lambda: share
        self._owner_waiting_max = owner_waiting_max
        self._held = 0
        self._owners: dict[str, _Owner] = {}
        self._round: deque[_Owner] = deque()  # bounded: each owner is in it once
        """The owners that have a waiting place and are below their share, each once."""
        self._serving = False

    def __len__(self) -> int:
        """Return how many entries about owners are held."""
        return max(len(self._owners), len(self._round))

    def enter(self, owner: str, start: Callable[[Place], None]) -> Place | None:
        """Ask for a permit. `start` is called once, with the place that holds the permit; if a permit is free, within this call.

        Returns the place, or None if the owner has too many places already.
        """
        known = self._owners.get(owner)
        if known is None:
            known = self._owners[owner] = _Owner(owner)
        if known.held + len(known.waiting) >= min(self._share()) + self._owner_waiting_max:
            return None
        place = Place(self, owner, start)
        known.waiting[place] = None
        self._join_round(known)
        self._serve()
        return place

    @contextlib.asynccontextmanager
    async def permit(self, owner: str, within_s: float) -> AsyncIterator[None]:
        """Hold a permit within the body; raises `PermitRefusedError` if the owner has too many places, or none is free in time."""
        started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        place = self.enter(owner, lambda _place: started.set_result(None))
        if place is None:
            raise PermitRefusedError
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(within_s):
                    # Shielded: a place may still be started between the timeout and its `leave`.
                    await asyncio.shield(started)
            if not place.holds_permit:
                raise PermitRefusedError
            yield
        finally:
            place.leave()

    def leave(self, place: Place) -> None:
        """See `Place.leave`."""
        owner = self._owners.get(place.owner)
        if owner is None:
            return
        if place.holds_permit:
            place.holds_permit = False
            owner.held -= 1
            self._held -= 1
            self._join_round(owner)
            self._serve()
        else:
            owner.waiting.pop(place, None)
        self._forget_if_idle(owner)

    def _join_round(self, owner: "_Owner") -> None:
        if not owner.in_round and owner.waiting and owner.held < min(self._share()):
            owner.in_round = True
            self._round.append(owner)

    def _forget_if_idle(self, owner: "_Owner") -> None:
        # An owner in the round stays known. Otherwise each place that comes and goes would add another entry to the round.
        if not owner.held and not owner.waiting and not owner.in_round:
            self._owners.pop(owner.name, None)

    def _serve(self) -> None:
        """Start places while there are permits. A place may leave within its start, so a nested call returns at once."""
        if self._serving:
            return
        self._serving = True
        try:
            while self._round and self._held < self._share().permits:
                owner = self._round.popleft()
                owner.in_round = False
                if not owner.waiting or owner.held >= min(self._share()):
                    self._forget_if_idle(owner)  # its places have left, or its share has shrunk
                    continue
                place, _ = owner.waiting.popitem(last=False)
                owner.held += 1
                self._held += 1
                self._join_round(owner)
                place.begin()
        finally:
            self._serving = False


class _Owner:
    """The places of one owner."""

    __slots__ = ("held", "in_round", "name", "waiting")

    def __init__(self, name: str) -> None:
        self.name = name
        self.held = 0
        self.in_round = False
        self.waiting: OrderedDict[Place, None] = OrderedDict()
