"""Fair semaphore: each owner has its share, and owners take turns."""

import asyncio
import random

import pytest

from services.runtime.fair_semaphore import FairSemaphore, PermitRefusedError, Place, Share


def entered(semaphore: FairSemaphore, owner: str, begun: list[Place]) -> Place:
    """Ask for a permit; its place is added to `begun` when it begins."""
    place = semaphore.enter(owner, begun.append)
    assert place is not None
    return place


async def test_one_owner_has_no_more_than_its_share_and_the_rest_is_for_others() -> None:
    semaphore, begun = FairSemaphore(Share(8, 2), owner_waiting_max=100), list[Place]()
    for owner in ("greedy", *"abc"):
        for _ in range(50 if owner == "greedy" else 2):
            entered(semaphore, owner, begun)
    assert [place.owner for place in begun] == [*["greedy"] * 2, *"aabbcc"]


async def test_owners_take_turns_whatever_each_has_waiting() -> None:
    semaphore, begun = FairSemaphore(Share(1, 1), owner_waiting_max=1000), list[Place]()
    for _ in range(1000):
        entered(semaphore, "greedy", begun)
    for owner in "ab":
        entered(semaphore, owner, begun)
    for number in range(4):
        begun[number].leave()
    assert [place.owner for place in begun] == ["greedy", "a", "b", "greedy", "greedy"]


async def test_an_owner_with_too_many_places_is_refused_and_others_are_not() -> None:
    semaphore, begun = FairSemaphore(Share(2, 1), owner_waiting_max=3), list[Place]()
    places = [entered(semaphore, "greedy", begun) for _ in range(4)]
    assert semaphore.enter("greedy", begun.append) is None
    assert entered(semaphore, "other", begun).holds_permit
    places[3].leave()
    assert entered(semaphore, "greedy", begun).holds_permit is False


async def test_a_place_may_leave_within_its_own_start() -> None:
    semaphore, begun = FairSemaphore(Share(1, 1), owner_waiting_max=10_000), list[Place]()
    first = entered(semaphore, "a", begun)
    for _ in range(5000):
        assert semaphore.enter("a", Place.leave) is not None
    entered(semaphore, "a", begun)
    first.leave()
    assert len(begun) == 2


async def test_places_that_come_and_go_leave_nothing_behind() -> None:
    semaphore, begun = FairSemaphore(Share(1, 1), owner_waiting_max=1), list[Place]()
    first = entered(semaphore, "a", begun)
    for _ in range(1000):
        place = entered(semaphore, "b", begun)
        place.leave()
        place.leave()
    assert len(semaphore) == 2
    first.leave()
    assert (len(begun), len(semaphore)) == (1, 0)


async def test_permits_are_never_lost_nor_given_twice() -> None:
    """Owners come, leave and give up in any order."""
    chance, live, begun = random.Random(7), list[Place](), list[Place]()
    semaphore = FairSemaphore(Share(5, 2), owner_waiting_max=4)
    for _ in range(20_000):
        if chance.random() < 0.55 or not live:
            place = semaphore.enter(chance.choice("abcdef"), begun.append)
            live += [place] if place is not None else []
        else:
            live.pop(chance.randrange(len(live))).leave()
        holding = [place.owner for place in live if place.holds_permit]
        assert len(holding) <= 5
        assert all(holding.count(owner) <= 2 for owner in "abcdef")
        waiting = {place.owner for place in live if not place.holds_permit}
        assert len(holding) == 5 or all(holding.count(owner) == 2 for owner in waiting), (
            "a permit is free, and a place waits that may have it"
        )
    assert len(begun) == len(set(begun))
    for place in live:
        place.leave()
    assert len(semaphore) == 0


async def test_a_share_that_changes_counts_for_places_that_begin_from_then_on() -> None:
    share, begun = Share(2, 1), list[Place]()
    semaphore = FairSemaphore(lambda: share, owner_waiting_max=10)
    places = [entered(semaphore, owner, begun) for owner in "aaabb"]
    assert [place.owner for place in begun] == ["a", "b"]
    share = Share(4, 3)
    places.append(entered(semaphore, "b", begun))
    assert [place.owner for place in begun] == ["a", "b", "b", "b"]
    share = Share(1, 1)
    for place in places[:2]:
        place.leave()
    assert len(begun) == 4
    for place in places[2:]:
        place.leave()
    assert len(semaphore) == 0


async def test_who_waits_for_a_permit_is_refused_after_its_time() -> None:
    semaphore = FairSemaphore(Share(2, 1), owner_waiting_max=0)
    async with semaphore.permit("a", 10.0):
        with pytest.raises(PermitRefusedError):
            await hold(semaphore, "a", 10.0)
        async with semaphore.permit("b", 10.0):
            with pytest.raises(PermitRefusedError):
                await hold(semaphore, "c", 0.01)
            waiting = asyncio.ensure_future(hold(semaphore, "c", 10.0))
            cancelled = asyncio.ensure_future(hold(semaphore, "d", 10.0))
            await asyncio.sleep(0)
            cancelled.cancel()
        await waiting
        with pytest.raises(asyncio.CancelledError):
            await cancelled
    assert len(semaphore) == 0


async def hold(semaphore: FairSemaphore, owner: str, within_s: float) -> None:
    """Hold a permit for a moment."""
    async with semaphore.permit(owner, within_s):
        await asyncio.sleep(0)
