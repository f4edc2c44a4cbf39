"""Fair semaphore: each owner has its share, and owners take turns."""

import asyncio
import random

import pytest

from services.runtime.fair_semaphore import FairSemaphore, PermitRefusedError, PermitRequest, Share


def entered(semaphore: FairSemaphore, owner: str, begun: list[PermitRequest]) -> PermitRequest:
    """Ask for a permit; its request is added to `begun` when it begins."""
    permit_request = semaphore.enter(owner, begun.append)
    assert permit_request is not None
    return permit_request


async def test_one_owner_has_no_more_than_its_share_and_the_rest_is_for_others() -> None:
    semaphore, begun = FairSemaphore(Share(8, 2), owner_waiting_max=100), list[PermitRequest]()
    for owner in ("greedy", *"abc"):
        for _ in range(50 if owner == "greedy" else 2):
            entered(semaphore, owner, begun)
    assert [permit_request.owner for permit_request in begun] == [*["greedy"] * 2, *"aabbcc"]


async def test_owners_take_turns_whatever_each_has_waiting() -> None:
    semaphore, begun = FairSemaphore(Share(1, 1), owner_waiting_max=1000), list[PermitRequest]()
    for _ in range(1000):
        entered(semaphore, "greedy", begun)
    for owner in "ab":
        entered(semaphore, owner, begun)
    for number in range(4):
        begun[number].leave()
    assert [permit_request.owner for permit_request in begun] == ["greedy", "a", "b", "greedy", "greedy"]


async def test_an_owner_with_too_many_places_is_refused_and_others_are_not() -> None:
    semaphore, begun = FairSemaphore(Share(2, 1), owner_waiting_max=3), list[PermitRequest]()
    permit_requests = [entered(semaphore, "greedy", begun) for _ in range(4)]
    assert semaphore.enter("greedy", begun.append) is None
    assert entered(semaphore, "other", begun).holds_permit
    permit_requests[3].leave()
    assert entered(semaphore, "greedy", begun).holds_permit is False


async def test_a_place_may_leave_within_its_own_start() -> None:
    semaphore, begun = FairSemaphore(Share(1, 1), owner_waiting_max=10_000), list[PermitRequest]()
    first = entered(semaphore, "a", begun)
    for _ in range(5000):
        assert semaphore.enter("a", PermitRequest.leave) is not None
    entered(semaphore, "a", begun)
    first.leave()
    assert len(begun) == 2


async def test_places_that_come_and_go_leave_nothing_behind() -> None:
    semaphore, begun = FairSemaphore(Share(1, 1), owner_waiting_max=1), list[PermitRequest]()
    first = entered(semaphore, "a", begun)
    for _ in range(1000):
        permit_request = entered(semaphore, "b", begun)
        permit_request.leave()
        permit_request.leave()
    assert len(semaphore) == 2
    first.leave()
    assert (len(begun), len(semaphore)) == (1, 0)


async def test_permits_are_never_lost_nor_given_twice() -> None:
    """Owners come, leave and give up in any order."""
    chance, live, begun = random.Random(7), list[PermitRequest](), list[PermitRequest]()
    semaphore = FairSemaphore(Share(5, 2), owner_waiting_max=4)
    for _ in range(20_000):
        if chance.random() < 0.55 or not live:
            permit_request = semaphore.enter(chance.choice("abcdef"), begun.append)
            live += [permit_request] if permit_request is not None else []
        else:
            live.pop(chance.randrange(len(live))).leave()
        holding = [permit_request.owner for permit_request in live if permit_request.holds_permit]
        assert len(holding) <= 5
        assert all(holding.count(owner) <= 2 for owner in "abcdef")
        waiting = {permit_request.owner for permit_request in live if not permit_request.holds_permit}
        assert len(holding) == 5 or all(holding.count(owner) == 2 for owner in waiting), (
            "a permit is free, and a permit_request waits that may have it"
        )
    assert len(begun) == len(set(begun))
    for permit_request in live:
        permit_request.leave()
    assert len(semaphore) == 0


async def test_a_share_that_changes_counts_for_places_that_begin_from_then_on() -> None:
    share, begun = Share(2, 1), list[PermitRequest]()
    semaphore = FairSemaphore(lambda: share, owner_waiting_max=10)
    permit_requests = [entered(semaphore, owner, begun) for owner in "aaabb"]
    assert [permit_request.owner for permit_request in begun] == ["a", "b"]
    share = Share(4, 3)
    permit_requests.append(entered(semaphore, "b", begun))
    assert [permit_request.owner for permit_request in begun] == ["a", "b", "b", "b"]
    share = Share(1, 1)
    for permit_request in permit_requests[:2]:
        permit_request.leave()
    assert len(begun) == 4
    for permit_request in permit_requests[2:]:
        permit_request.leave()
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
