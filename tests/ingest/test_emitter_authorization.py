"""Emitter authorization, event types: what ingest asks the registry about them, counted by a registry of the test's own."""

import asyncio
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from hooktide.error.v1 import error_pb2
from hooktide.ingest.v1 import ingest_pb2

from services.ingest.emitter_authorization import TURNS_REMEMBERED, TYPES_ASKED_MAX, TYPES_KEPT_MAX
from services.runtime.api_key import new_key
from services.runtime.api_key_cache import FRESH_S
from services.runtime.errors import Failure, Reason
from services.runtime.ids import new_id
from tests.ingest.counted_registry import Asking, Counted, bearer
from tests.ingest.world import TIMEOUT_S, ended, message, positions, rest, running_world
from tests.support.events import cloud_event
from tests.support.system.registry import refused
from tests.support.waiting import until

Context = grpc.aio.ServicerContext[Any, Any]


def names(count: int, family: str = "t") -> list[str]:
    return [f"{family}.{number}" for number in range(count)]


async def test_what_was_answered_before_the_machine_was_suspended_is_asked_for_again(counted: Counted, asking: Asking) -> None:
    key = new_key()
    await asking.authorizer.authorize(bearer(key))
    assert await asking.required(["a"]) == set()
    counted.wrong.add(key)
    counted.demanding.add("a")
    asking.clock.suspended_s += FRESH_S
    with pytest.raises(Failure) as caught:
        await asking.authorizer.authorize(bearer(key))
    assert caught.value.reason is Reason.KEY_INVALID
    assert await asking.required(["a"]) == {"a"}


async def test_a_thousand_types_of_one_message_are_one_call(counted: Counted, tmp_path: Path) -> None:
    """Later messages of these types need no call, whoever sends them."""
    counted.demanding = {"t.7", "not published"}
    async with running_world(tmp_path, HOOKTIDE_SUBSCRIPTION_TARGET=counted.target) as world:
        results = await world.publish_batch(cloud_event(type_=name) for name in names(1000))
        assert [number for number, result in enumerate(results) if result.WhichOneof("result") == "error"] == [7]
        assert results[7].error.reason == error_pb2.ERROR_REASON_AUDIENCE_REQUIRED
        positions([*results[:7], *results[8:]])
        assert counted.calls == [sorted(names(1000))]

        async with world.stream() as call:
            await call.write(message(*(cloud_event(type_=name) for name in names(500))))
            await call.done_writing()
            (response,) = await rest(call)
            assert [result.error.reason for result in response.results if result.WhichOneof("result") == "error"] == [
                error_pb2.ERROR_REASON_AUDIENCE_REQUIRED
            ]
        # Unless this machine is so slow that the answers have become too old meanwhile.
        assert len(counted.calls) <= 2
        assert all(len(asked) == 1000 for asked in counted.calls)


async def test_events_that_name_their_consumer_need_no_answer(counted: Counted, tmp_path: Path) -> None:
    counted.demanding = {"t.0"}
    async with running_world(tmp_path, HOOKTIDE_SUBSCRIPTION_TARGET=counted.target) as world:
        events = [cloud_event(type_="t.0", audience=new_id("con")), cloud_event(type_="t.1")]
        positions(await world.publish_batch(events))
        assert counted.calls == [["t.1"]]


async def test_only_what_is_not_known_is_asked_for(counted: Counted, asking: Asking) -> None:
    counted.demanding = {"t.1", "u.1"}
    assert await asking.required(names(3)) == {"t.1"}
    assert await asking.required(names(5)) == {"t.1"}
    assert await asking.required([*names(2), *names(2, "u")]) == {"t.1", "u.1"}
    assert await asking.required([]) == set()
    assert await asking.required(["t.0", "t.4", "u.1"]) == {"u.1"}
    assert counted.calls == [["t.0", "t.1", "t.2"], ["t.3", "t.4"], ["u.0", "u.1"]]


async def test_answers_that_are_too_old_are_asked_for_anew_in_one_call(counted: Counted, asking: Asking) -> None:
    """The call asks for all known types, whichever messages had them and whichever message comes first."""
    for number in range(10):
        await asking.required(names(100, f"m{number}"))
        asking.clock.time_s += 0.1
    assert len(counted.calls) == 10
    asking.clock.time_s += FRESH_S
    await asking.required(["m3.5", "new"])
    for number in range(10):
        await asking.required(names(100, f"m{number}"))
    everything = [name for number in range(10) for name in names(100, f"m{number}")]
    assert len(counted.calls) == 12  # the new type did not fit into a call with the 999 others and m3.5
    assert counted.calls[10][-1] == "new"
    assert sorted({*counted.calls[10], *counted.calls[11]}) == sorted([*everything, "new"])
    assert len(counted.calls[10]) == TYPES_ASKED_MAX


async def test_more_types_than_one_call_takes_are_asked_for_in_as_few_as_they_need(counted: Counted, asking: Asking) -> None:
    for _ in range(3):
        for first in (0, 1000, 2000):
            await asking.required(names(2500)[first : first + 1000])
        asking.clock.time_s += FRESH_S
    assert sorted(map(len, counted.calls)) == [500, 500, 500] + [1000] * 6


async def test_a_type_that_comes_to_require_an_audience_does_so_after_2_seconds_at_most(counted: Counted, asking: Asking) -> None:
    """A type that no longer requires an audience changes within the same time."""
    counted.demanding = {"t.1"}
    assert await asking.required(names(2)) == {"t.1"}
    counted.demanding = {"t.0"}
    asking.clock.time_s += 1.9
    assert await asking.required([*names(2), "t.2"]) == {"t.1"}
    asking.clock.time_s += 0.1
    assert await asking.required(names(2)) == {"t.0"}
    assert counted.calls == [["t.0", "t.1"], ["t.2"], ["t.0", "t.1", "t.2"]]


async def test_messages_at_once_share_the_questions_under_way(counted: Counted, asking: Asking) -> None:
    counted.open.clear()
    counted.demanding = {"t.4", "t.9"}
    waiting = [asking.soon(names(5)) for _ in range(20)]
    await until(lambda: len(counted.calls) == 1)
    waiting += [asking.soon(names(10)) for _ in range(20)]
    await until(lambda: len(counted.calls) == 2)
    waiting += [asking.soon(["t.0", "t.9"]) for _ in range(20)]
    counted.open.set()
    answers = await asyncio.gather(*waiting)
    assert answers == [{"t.4"}] * 20 + [{"t.4", "t.9"}] * 20 + [{"t.9"}] * 20
    assert counted.calls == [names(5), names(10)[5:]]


async def test_a_question_under_way_for_2_seconds_serves_those_who_wait_and_nobody_else(counted: Counted, asking: Asking) -> None:
    counted.open.clear()
    early = asking.soon(["t.0"])
    await until(lambda: len(counted.calls) == 1)
    counted.demanding = {"t.0"}
    asking.clock.time_s += FRESH_S
    late = asking.soon(["t.0"])
    await until(lambda: len(counted.calls) == 2)
    counted.open.set()
    assert (await early, await late) == (set(), {"t.0"})
    assert await asking.required(["t.0"]) == {"t.0"}
    assert counted.calls == [["t.0"]] * 2


async def test_a_type_that_nobody_publishes_any_more_is_forgotten(counted: Counted, asking: Asking) -> None:
    """The types that are still published are one call each time."""
    await asking.required(["gone", "t.0", "t.1"])
    for _ in range(2 * TURNS_REMEMBERED):
        asking.clock.time_s += FRESH_S
        for name in names(2):
            await asking.required([name])
    remembering = counted.calls.count(["gone", "t.0", "t.1"])
    assert TURNS_REMEMBERED < remembering < len(counted.calls) == 2 * TURNS_REMEMBERED + 1
    assert counted.calls[remembering:] == [["t.0", "t.1"]] * (len(counted.calls) - remembering)


async def test_what_is_kept_is_bounded(counted: Counted, asking: Asking) -> None:
    """Beyond the limit everything is forgotten at once, and answers stay correct."""
    counted.demanding = {"m0.1"}
    for number in range(TYPES_KEPT_MAX // 1000):
        await asking.required(names(1000, f"m{number}"))
    assert await asking.required(["m0.0", "m0.1"]) == {"m0.1"}
    assert await asking.required(["m0.0", "m0.1"]) == {"m0.1"}
    assert [len(asked) for asked in counted.calls] == [1000] * (TYPES_KEPT_MAX // 1000) + [2]


@pytest.mark.parametrize("code", [grpc.StatusCode.INTERNAL, grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.UNAUTHENTICATED])
async def test_without_an_answer_all_who_wait_for_it_are_refused_for_now(counted: Counted, asking: Asking, code: grpc.StatusCode) -> None:
    """Known answers stay, and the next message asks again."""
    await asking.required(["known"])
    counted.failures = [code]
    outcomes = await asyncio.gather(*(asking.soon(["known", "t.0"]) for _ in range(5)), return_exceptions=True)
    for failure in outcomes:
        assert isinstance(failure, Failure)
        assert (failure.reason, failure.retry_after_s) == (Reason.UNAVAILABLE, 1.0)
    assert await asking.required(["known"]) == set()
    counted.demanding = {"t.0"}
    assert await asking.required(["known", "t.0"]) == {"t.0"}
    assert counted.calls == [["known"], ["t.0"], ["t.0"]]


async def test_a_registry_that_cannot_be_reached_for_a_moment_is_asked_again(counted: Counted, asking: Asking) -> None:
    counted.failures = [grpc.StatusCode.UNAVAILABLE] * 2
    assert await asking.required(["t.0"]) == set()
    assert len(counted.calls) == 3


async def test_events_of_types_that_cannot_be_asked_for_are_refused_rather_than_taken(counted: Counted, tmp_path: Path) -> None:
    counted.failures = [grpc.StatusCode.INTERNAL]
    async with running_world(tmp_path, HOOKTIDE_SUBSCRIPTION_TARGET=counted.target) as world:
        failure = await refused(world.publish_batch([cloud_event(), cloud_event(type_="t.0")]))
        assert (failure.reason, failure.retry_after_s) == (Reason.UNAVAILABLE, 1.0)
        assert await world.records() == []


async def test_one_who_gives_up_on_types_leaves_the_others_their_answer(counted: Counted, tmp_path: Path) -> None:
    """The others wait for the answer, each up to its own deadline, and need not ask again."""
    counted.open.clear()
    async with running_world(tmp_path, HOOKTIDE_SUBSCRIPTION_TARGET=counted.target) as world:
        request = ingest_pb2.PublishRequest(event=cloud_event())
        hurried = world.ingest.Publish(request, metadata=world.metadata(), timeout=0.3)
        await until(lambda: len(counted.calls) == 1)
        patient = world.ingest.Publish(request, metadata=world.metadata(), timeout=1.0)
        most_patient = world.ingest.Publish(request, metadata=world.metadata(), timeout=TIMEOUT_S)
        assert await ended(hurried) is grpc.StatusCode.DEADLINE_EXCEEDED
        assert await ended(patient) is grpc.StatusCode.DEADLINE_EXCEEDED
        counted.open.set()
        assert (await most_patient).receipt.event_id
        # Unless this machine is so slow that the others came after two seconds.
        assert len(counted.calls) <= 2


async def test_messages_of_a_stream_stay_in_order_while_types_are_asked_for(counted: Counted, tmp_path: Path) -> None:
    """A message with known types does not overtake a message that waits for an answer."""
    async with running_world(tmp_path, HOOKTIDE_SUBSCRIPTION_TARGET=counted.target) as world:
        await world.publish(cloud_event(type_="known"))
        counted.open.clear()
        async with world.stream() as call:
            await call.write(message(cloud_event("first", type_="t.0", subject="s"), cloud_event("second", type_="known", subject="s")))
            await call.write(message(cloud_event("third", type_="known", subject="s")))
            await until(lambda: len(counted.calls) == 2)
            counted.open.set()
            await call.done_writing()
            found = [position for response in await rest(call) for position in positions(response.results)]
        assert found == sorted(found)
        assert len(found) == 3


async def test_a_type_is_enforced_within_2_seconds_among_a_thousand(counted: Counted, tmp_path: Path) -> None:
    """The test publishes events by the machine's own clock: every 2 seconds one call asks for all types."""
    batch = [cloud_event(type_=name, subject="s") for name in names(1000)]
    async with running_world(tmp_path, HOOKTIDE_SUBSCRIPTION_TARGET=counted.target) as world:
        positions(await world.publish_batch(batch))
        counted.demanding = {"t.500"}
        changed = time.monotonic()
        while True:
            published = time.monotonic()
            (result,) = await world.publish_batch([cloud_event(type_="t.500")])
            if result.WhichOneof("result") == "error":
                break
            # A publication is judged by the time at which it began, since its answer may come late on a busy machine.
            assert published - changed < FRESH_S + 1
        assert result.error.reason == error_pb2.ERROR_REASON_AUDIENCE_REQUIRED
        assert len(counted.calls) > 1
        assert all(len(asked) == 1000 for asked in counted.calls)
