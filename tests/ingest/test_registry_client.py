"""Registry client, API keys: what ingest asks the registry about them, counted by a registry of the test's own."""

import asyncio
from collections.abc import Iterable
from typing import Any

import grpc

from services.runtime.api_key import new_key
from services.runtime.api_key_cache import KEYS_ASKED_MAX, REFUSED_MAX, RENEW_S
from services.runtime.errors import Failure, Reason
from tests.ingest.counted_registry import Asking, Counted, bearer
from tests.support.waiting import until

Context = grpc.aio.ServicerContext[Any, Any]


async def refusals(asking: Asking, keys: Iterable[str]) -> list[Reason | None]:
    """Authorize keys side by side; return why each may not publish, None if it may."""

    async def judge(key: str) -> Reason | None:
        try:
            await asking.authorizer.authorize(bearer(key))
        except Failure as failure:
            return failure.reason
        return None

    return await asyncio.gather(*(judge(key) for key in keys))


async def test_a_key_with_a_wrong_checksum_is_refused_without_a_question(counted: Counted, asking: Asking) -> None:
    right = new_key()
    mistyped = [right[:-1], right + "0", right[:-1] + ("0" if right[-1] != "0" else "1"), "hkt_", "x" * 5000]
    assert await refusals(asking, mistyped) == [Reason.KEY_INVALID] * len(mistyped)
    assert counted.asked == []


async def test_many_wrong_keys_at_once_are_one_question_and_a_right_one_among_them_passes(counted: Counted, asking: Asking) -> None:
    """A caller that comes while a question is under way joins the next one, however many callers there are."""
    wrong, right = [new_key() for _ in range(150)], new_key()
    counted.wrong.update(wrong)
    counted.keys_open.clear()
    first = asyncio.ensure_future(refusals(asking, wrong[:1]))
    await until(lambda: len(counted.asked) == 1)
    rest = asyncio.ensure_future(refusals(asking, [*wrong[1:], right]))
    await asyncio.sleep(0)
    counted.keys_open.set()
    assert await first == [Reason.KEY_INVALID]
    assert await rest == [Reason.KEY_INVALID] * 149 + [None]
    assert [len(keys) for keys in counted.asked] == [1, 150]


async def test_a_right_key_in_use_never_waits_for_the_registry(counted: Counted, asking: Asking) -> None:
    """The registry is asked again while the old answer still holds, even if a question about other keys gets no answer."""
    right = new_key()
    assert await refusals(asking, [right]) == [None]
    counted.keys_open.clear()
    stranger = asyncio.ensure_future(refusals(asking, [new_key()]))
    await until(lambda: len(counted.asked) == 2)
    asking.clock.time_s += RENEW_S
    assert await refusals(asking, [right]) == [None]
    await until(lambda: counted.asked[2:] == [[right]])
    asking.clock.time_s += RENEW_S
    waits = asyncio.ensure_future(refusals(asking, [right]))
    await asyncio.sleep(0)
    assert not waits.done()
    counted.keys_open.set()
    assert await waits == [None]
    assert await stranger == [None]


async def test_guesses_displace_no_right_key(counted: Counted, asking: Asking) -> None:
    right, wrong = new_key(), [new_key() for _ in range(REFUSED_MAX + 50)]
    counted.wrong.update(wrong)
    assert await refusals(asking, [right]) == [None]
    assert set(await refusals(asking, wrong)) == {Reason.KEY_INVALID}
    asked = len(counted.asked)
    assert await refusals(asking, [right]) == [None]
    assert len(counted.asked) == asked
    assert all(len(keys) <= KEYS_ASKED_MAX for keys in counted.asked)
