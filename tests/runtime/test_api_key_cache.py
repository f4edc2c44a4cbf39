import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
import structlog

from services.runtime.api_key import format_key
from services.runtime.api_key_cache import FRESH_S, KEYS_ASKED_MAX, REFUSED_MAX, RENEW_S, ApiKeyCache
from services.runtime.errors import Failure, Reason
from tests.support.clock import MovedClock
from tests.support.waiting import until


@dataclass(frozen=True)
class Owner:
    """What the registry says about a valid key."""

    name: str
    expires_unix_s: float | None = None


@dataclass
class Registry:
    """Knows the keys in `owners`; notes the questions, and answers while `open` is set."""

    owners: dict[str, Owner] = field(default_factory=dict)
    away: Failure | None = None
    """If set, the registry cannot be asked, for this reason."""
    bug: bool = False
    """Whether a question ends in an error that is not a `Failure`."""
    questions: list[list[str]] = field(default_factory=list)
    slow: list[list[Owner | Failure]] = field(default_factory=list)
    """The answers of the next questions, if these were decided before the registry's present state."""
    open: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def asked(self) -> list[str]:
        """The keys of all questions."""
        return [key for question in self.questions for key in question]

    async def ask(self, keys: Sequence[str]) -> list[Owner | Failure]:
        """Answer one question."""
        self.questions.append(list(keys))
        decided = self.slow.pop(0) if self.slow else None
        await self.open.wait()
        if decided is not None:
            return decided
        if self.bug:
            raise RuntimeError("a bug")
        if self.away is not None:
            raise self.away
        return [self.owners.get(key, Failure(Reason.KEY_INVALID, "Unknown.")) for key in keys]


def key(number: int) -> str:
    return format_key(number.to_bytes(32, "big"))


A, UNKNOWN = key(100), key(200)


@pytest.fixture
def time() -> MovedClock:
    return MovedClock()


@pytest.fixture
def registry() -> Registry:
    registry = Registry()
    registry.open.set()
    return registry


@pytest.fixture
def cache(registry: Registry, time: MovedClock) -> ApiKeyCache[Owner]:
    return ApiKeyCache(registry.ask, time, valid_max=3)


async def refusal(cache: ApiKeyCache[Owner], key: str) -> Reason:
    with pytest.raises(Failure) as caught:
        await cache.get(key)
    return caught.value.reason


async def test_an_answer_is_used_for_two_seconds_from_its_question(registry: Registry, time: MovedClock, cache: ApiKeyCache[Owner]) -> None:
    registry.owners[A] = Owner("1")
    assert (await cache.get(A)).name == "1"
    time.time_s += FRESH_S - 0.25
    await cache.get(A)
    assert registry.asked == [A]
    del registry.owners[A]
    time.time_s += 0.25
    assert await refusal(cache, A) is Reason.KEY_INVALID


async def test_the_time_in_which_the_machine_is_suspended_counts(registry: Registry, time: MovedClock, cache: ApiKeyCache[Owner]) -> None:
    registry.owners[A] = Owner("1")
    await cache.get(A)
    del registry.owners[A]
    time.suspended_s += FRESH_S
    assert await refusal(cache, A) is Reason.KEY_INVALID


async def test_the_time_that_the_registry_takes_counts(registry: Registry, time: MovedClock, cache: ApiKeyCache[Owner]) -> None:
    """If a key is revoked right after a slow question was answered, it still stops within two seconds of that question."""
    registry.owners[A] = Owner("1")
    registry.open.clear()
    async with asyncio.TaskGroup() as group:
        group.create_task(cache.get(A))
        await until(lambda: bool(registry.asked))
        time.time_s += FRESH_S
        registry.open.set()
    await cache.get(A)
    assert len(registry.asked) == 2


async def test_a_key_s_own_end_is_respected_at_once(registry: Registry, time: MovedClock, cache: ApiKeyCache[Owner]) -> None:
    registry.owners[A] = Owner("1", time.time_s + 1)
    await cache.get(A)
    time.time_s += 1
    await cache.get(A)
    assert len(registry.asked) == 2


async def test_a_key_past_its_own_end_is_not_known(registry: Registry, time: MovedClock, cache: ApiKeyCache[Owner]) -> None:
    registry.owners[A] = Owner("1", time.time_s + 1)
    await cache.get(A)
    assert cache.knows(A)
    time.time_s += 1
    assert not cache.knows(A)


@pytest.mark.parametrize("is_renewal", [False, True], ids=["new key", "renewal"])
async def test_a_caller_gets_no_answer_to_a_question_that_is_too_old(
    registry: Registry, time: MovedClock, cache: ApiKeyCache[Owner], *, is_renewal: bool
) -> None:
    """The registry decides at once, and its answer is long under way; the key is revoked meanwhile."""
    registry.owners[A] = Owner("1")
    if is_renewal:
        await cache.get(A)
        time.time_s += RENEW_S
    asked = len(registry.asked)
    registry.slow.append([registry.owners[A]])
    registry.open.clear()
    async with asyncio.TaskGroup() as group:
        early = group.create_task(cache.get(A))
        await until(lambda: len(registry.asked) > asked)
        del registry.owners[A]
        time.time_s += FRESH_S
        late = group.create_task(refusal(cache, A))
        await asyncio.sleep(0)
        registry.open.set()
    assert early.result().name == "1"
    assert late.result() is Reason.KEY_INVALID


async def test_calls_with_one_key_at_one_time_share_one_question(registry: Registry, cache: ApiKeyCache[Owner]) -> None:
    registry.owners[A] = Owner("1")
    registry.open.clear()
    async with asyncio.TaskGroup() as group:
        calls = [group.create_task(cache.get(A)) for _ in range(50)]
        await until(lambda: bool(registry.asked))
        registry.open.set()
    assert {call.result().name for call in calls} == {"1"}
    assert registry.asked == [A]


async def test_a_question_goes_on_for_the_others_if_its_first_caller_gives_up(registry: Registry, cache: ApiKeyCache[Owner]) -> None:
    registry.owners[A] = Owner("1")
    registry.open.clear()
    async with asyncio.TaskGroup() as group:
        first = group.create_task(cache.get(A))
        await until(lambda: bool(registry.asked))
        second = group.create_task(cache.get(A))
        await asyncio.sleep(0)
        first.cancel()
        await until(first.done)
        registry.open.set()
    assert first.cancelled()
    assert second.result().name == "1"
    assert registry.asked == [A]


async def test_a_valid_key_in_use_is_renewed_before_a_caller_has_to_wait(
    registry: Registry, time: MovedClock, cache: ApiKeyCache[Owner]
) -> None:
    registry.owners[A] = Owner("1")
    await cache.get(A)
    registry.owners[A] = Owner("2")
    time.time_s += RENEW_S
    assert (await cache.get(A)).name == "1"
    await until(lambda: len(registry.asked) == 2)
    await until(lambda: cache.knows(A))
    time.time_s += RENEW_S
    assert (await cache.get(A)).name == "2"


async def test_keys_that_come_during_a_question_share_the_next_one(registry: Registry, cache: ApiKeyCache[Owner]) -> None:
    registry.open.clear()
    keys = [key(number) for number in range(KEYS_ASKED_MAX + 2)]
    async with asyncio.TaskGroup() as group:
        calls = [group.create_task(refusal(cache, keys[0]))]
        await until(lambda: bool(registry.asked))
        calls += [group.create_task(refusal(cache, each)) for each in keys[1:]]
        await asyncio.sleep(0)
        registry.open.set()
    assert {call.result() for call in calls} == {Reason.KEY_INVALID}
    assert registry.questions == [keys[:1], keys[1 : KEYS_ASKED_MAX + 1], keys[KEYS_ASKED_MAX + 1 :]]


async def test_refused_keys_displace_no_valid_key_and_are_bounded_themselves(registry: Registry, cache: ApiKeyCache[Owner]) -> None:
    registry.owners[A] = Owner("1")
    await cache.get(A)
    guesses = [key(1000 + number) for number in range(REFUSED_MAX + 1)]
    for guess in guesses:
        await refusal(cache, guess)
    asked = len(registry.asked)
    await cache.get(A)
    await refusal(cache, guesses[-1])
    assert len(registry.asked) == asked
    await refusal(cache, guesses[0])
    assert registry.asked[asked:] == guesses[:1]


@pytest.mark.parametrize("bug", [False, True], ids=["away", "bug"])
async def test_callers_of_two_questions_about_one_key_all_learn_of_a_failure(
    registry: Registry, time: MovedClock, cache: ApiKeyCache[Owner], *, bug: bool
) -> None:
    registry.bug, registry.away = bug, Failure(Reason.UNAVAILABLE, "Away.")
    registry.open.clear()
    with structlog.testing.capture_logs():
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            calls = [group.create_task(refusal(cache, A))]
            await until(lambda: bool(registry.asked))
            time.time_s += FRESH_S
            calls.append(group.create_task(refusal(cache, A)))
            await asyncio.sleep(0)
            registry.open.set()
    assert [call.result() for call in calls] == [Reason.UNAVAILABLE] * 2


async def test_a_bug_in_the_question_leaves_no_caller_waiting(registry: Registry, cache: ApiKeyCache[Owner]) -> None:
    registry.owners[A] = Owner("1")
    registry.bug = True
    with structlog.testing.capture_logs() as logs:
        assert await refusal(cache, A) is Reason.UNAVAILABLE
    assert [line["event"] for line in logs] == ["key_check.failed"]
    registry.bug = False
    assert (await cache.get(A)).name == "1"


async def test_a_bug_in_a_renewal_is_logged_and_refuses_the_key_once_its_answer_is_too_old(
    registry: Registry, time: MovedClock, cache: ApiKeyCache[Owner]
) -> None:
    registry.owners[A] = Owner("1")
    await cache.get(A)
    registry.bug = True
    time.time_s += RENEW_S
    with structlog.testing.capture_logs() as logs:
        assert (await cache.get(A)).name == "1"
        await until(lambda: bool(logs))
        time.time_s += RENEW_S
        assert await refusal(cache, A) is Reason.UNAVAILABLE
    assert {line["event"] for line in logs} == {"key_check.failed"}


async def test_a_refusal_is_remembered_and_the_registry_s_absence_is_not(registry: Registry, cache: ApiKeyCache[Owner]) -> None:
    for _ in range(3):
        assert await refusal(cache, UNKNOWN) is Reason.KEY_INVALID
    assert registry.asked == [UNKNOWN]
    registry.owners[A] = Owner("1")
    registry.away = Failure(Reason.UNAVAILABLE, "Away.", retry_after_s=3.0)
    with pytest.raises(Failure) as caught:
        await cache.get(A)
    assert (caught.value.reason, caught.value.retry_after_s) == (Reason.UNAVAILABLE, 3.0)
    registry.away = None
    assert (await cache.get(A)).name == "1"


async def test_the_key_unused_for_longest_is_forgotten_first(registry: Registry, cache: ApiKeyCache[Owner]) -> None:
    registry.owners |= {key(number): Owner(str(number)) for number in range(4)}
    for number in (0, 1, 2, 0, 3, 0):
        await cache.get(key(number))
    assert registry.asked == [key(number) for number in range(4)]
    await cache.get(key(1))
    assert registry.asked[-1] == key(1)


@pytest.mark.parametrize(
    "key", ["a", "hkt_", "hkt_ä", "hkt_" + "a" * 125, "hkt_a b", "hts_aaaa", "hkt_\udcff", A[:-1] + "_", key(101)[:-6] + A[-6:]]
)
async def test_what_cannot_be_a_key_is_refused_without_a_question(registry: Registry, cache: ApiKeyCache[Owner], key: str) -> None:
    assert await refusal(cache, key) is Reason.KEY_INVALID
    assert registry.asked == []


async def test_keys_that_come_one_after_the_other_share_questions() -> None:
    """A flood of guesses costs few questions, however fast the registry answers each."""
    registry = Registry()
    registry.open.set()
    cache: ApiKeyCache[Owner] = ApiKeyCache(registry.ask, MovedClock())

    async def guess(number: int) -> None:
        with pytest.raises(Failure):
            await cache.get(key(1_000 + number))

    async with asyncio.TaskGroup() as group:
        for number in range(150):
            group.create_task(guess(number))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
    assert len(registry.asked) == 150
    assert len(registry.questions) <= 15
