import asyncio
from dataclasses import dataclass, field

import pytest

from gateway.authenticate import REMEMBERED_S, Authenticator, Caller, Role
from services.runtime.api_key import format_key
from services.runtime.errors import Failure, Reason
from tests.support.clock import MovedClock
from tests.support.waiting import until


@dataclass
class Registry:
    """Knows the keys in `callers`; counts the questions, and answers while `open` is set."""

    callers: dict[str, Caller | Failure] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    open: asyncio.Event = field(default_factory=asyncio.Event)

    async def ask(self, key: str) -> Caller:
        """Answer one question."""
        self.asked.append(key)
        await self.open.wait()
        outcome = self.callers.get(key, Failure(Reason.KEY_INVALID, "Unknown."))
        if isinstance(outcome, Failure):
            raise outcome
        return outcome


def key(number: int) -> str:
    return format_key(number.to_bytes(32, "big"))


A, UNKNOWN = key(100), key(200)


def caller(number: int, *, expires_unix_s: float | None = None) -> Caller:
    return Caller(f"key_{number}", Role.CONSUMER, f"con_{number}", expires_unix_s, {})


@pytest.fixture
def time() -> MovedClock:
    return MovedClock()


@pytest.fixture
def registry() -> Registry:
    registry = Registry()
    registry.open.set()
    return registry


@pytest.fixture
def authenticator(registry: Registry, time: MovedClock) -> Authenticator:
    return Authenticator(registry.ask, time, remembered_max=3)


async def refusal(authenticator: Authenticator, authorization: str) -> Reason:
    with pytest.raises(Failure) as caught:
        await authenticator.caller(authorization)
    return caught.value.reason


async def test_a_caller_is_remembered_for_two_seconds_from_the_question(
    registry: Registry, time: MovedClock, authenticator: Authenticator
) -> None:
    registry.callers[A] = caller(1)
    assert (await authenticator.caller(f"Bearer {A}")).key_id == "key_1"
    time.time_s += REMEMBERED_S - 0.01
    await authenticator.caller(f"bearer {A}")
    assert registry.asked == [A]
    del registry.callers[A]
    time.time_s += 0.01
    assert await refusal(authenticator, f"Bearer {A}") is Reason.KEY_INVALID


async def test_the_time_in_which_the_machine_is_suspended_counts(
    registry: Registry, time: MovedClock, authenticator: Authenticator
) -> None:
    registry.callers[A] = caller(1)
    await authenticator.caller(f"Bearer {A}")
    del registry.callers[A]
    time.suspended_s += REMEMBERED_S
    assert await refusal(authenticator, f"Bearer {A}") is Reason.KEY_INVALID


async def test_the_time_that_the_registry_takes_counts(registry: Registry, time: MovedClock, authenticator: Authenticator) -> None:
    """If a key is revoked right after a slow question was answered, it still stops within two seconds of that question."""
    registry.callers[A] = caller(1)
    registry.open.clear()
    async with asyncio.TaskGroup() as group:
        group.create_task(authenticator.caller(f"Bearer {A}"))
        await until(lambda: bool(registry.asked))
        time.time_s += REMEMBERED_S
        registry.open.set()
    await authenticator.caller(f"Bearer {A}")
    assert len(registry.asked) == 2


async def test_a_key_s_own_end_is_respected_at_once(registry: Registry, time: MovedClock, authenticator: Authenticator) -> None:
    registry.callers[A] = caller(1, expires_unix_s=time.time_s + 1)
    await authenticator.caller(f"Bearer {A}")
    time.time_s += 1
    await authenticator.caller(f"Bearer {A}")
    assert len(registry.asked) == 2


async def test_calls_with_one_key_at_one_time_share_one_question(registry: Registry, authenticator: Authenticator) -> None:
    registry.callers[A] = caller(1)
    registry.open.clear()
    async with asyncio.TaskGroup() as group:
        calls = [group.create_task(authenticator.caller(f"Bearer {A}")) for _ in range(50)]
        await until(lambda: bool(registry.asked))
        registry.open.set()
    assert {call.result().key_id for call in calls} == {"key_1"}
    assert registry.asked == [A]


async def test_a_cancelled_question_is_asked_again_by_those_who_waited(registry: Registry, authenticator: Authenticator) -> None:
    registry.callers[A] = caller(1)
    registry.open.clear()
    async with asyncio.TaskGroup() as group:
        first = group.create_task(authenticator.caller(f"Bearer {A}"))
        await until(lambda: bool(registry.asked))
        second = group.create_task(authenticator.caller(f"Bearer {A}"))
        await asyncio.sleep(0)
        first.cancel()
        await until(lambda: len(registry.asked) == 2)
        registry.open.set()
    assert second.result().key_id == "key_1"


async def test_a_refusal_is_remembered_and_the_registry_s_absence_is_not(registry: Registry, authenticator: Authenticator) -> None:
    for _ in range(3):
        assert await refusal(authenticator, f"Bearer {UNKNOWN}") is Reason.KEY_INVALID
    assert registry.asked == [UNKNOWN]
    registry.callers[A] = Failure(Reason.UNAVAILABLE, "Away.", retry_after_s=3.0)
    assert await refusal(authenticator, f"Bearer {A}") is Reason.UNAVAILABLE
    registry.callers[A] = caller(1)
    assert (await authenticator.caller(f"Bearer {A}")).key_id == "key_1"


async def test_the_key_unused_for_longest_is_forgotten_first(registry: Registry, authenticator: Authenticator) -> None:
    registry.callers |= {key(number): caller(number) for number in range(4)}
    for number in (0, 1, 2, 0, 3, 0):
        await authenticator.caller(f"Bearer {key(number)}")
    assert registry.asked == [key(number) for number in range(4)]
    await authenticator.caller(f"Bearer {key(1)}")
    assert registry.asked[-1] == key(1)


@pytest.mark.parametrize("authorization", ["", "Basic aGt0X2E6", "hkt_a", "Bearer", "Bearer  "])
async def test_without_a_bearer_a_key_is_required(registry: Registry, authenticator: Authenticator, authorization: str) -> None:
    assert await refusal(authenticator, authorization) is Reason.KEY_REQUIRED
    assert registry.asked == []


@pytest.mark.parametrize(
    "key", ["a", "hkt_", "hkt_ä", "hkt_" + "a" * 125, "hkt_a b", "hts_aaaa", "hkt_\udcff", A[:-1] + "_", key(101)[:-6] + A[-6:]]
)
async def test_what_cannot_be_a_key_is_refused_without_a_question(registry: Registry, authenticator: Authenticator, key: str) -> None:
    assert await refusal(authenticator, f"Bearer {key}") is Reason.KEY_INVALID
    assert registry.asked == []
