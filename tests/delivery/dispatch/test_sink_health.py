"""Sink health: what failures of a sink lead to, and that nothing of a former sink counts for its subscription's next one."""

import asyncio
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.delivery.dispatch.circuit_breaker import FAILURES_MAX, CircuitBreaker
from services.delivery.dispatch.failing_period import FailingPeriod
from services.delivery.dispatch.sink_health import SinkHealth, Verdict
from services.delivery.model import State
from services.delivery.request.credentials import Header
from services.delivery.request.request_settings import RequestSettings
from tests.delivery.conftest import Play
from tests.simulation.endpoints import Mode
from tests.simulation.registry import DISABLED
from tests.simulation.scenarios import ALPHA, deliveries, finished, started
from tests.simulation.world import World

HOUR_S = 3600.0
NOTHING = Verdict(is_gone=False, opens=False, pauses=False)
NEW = "https://consumer.example/new"
LONG = {
    "HOOKTIDE_DELIVERY_BREAKER_SECONDS": "300",
    "HOOKTIDE_DELIVERY_RETRY_DELAYS_SECONDS": "600,600",
    "HOOKTIDE_DELIVERY_LANE_PENDING_MAX": "100",
    "HOOKTIDE_DELIVERY_LANE_IN_FLIGHT_MAX": "16",
    "HOOKTIDE_DELIVERY_IN_FLIGHT_MAX": "64",
}


def new_sink() -> SinkHealth:
    return SinkHealth(1, CircuitBreaker(30.0))


def test_one_failure_holds_nothing_back() -> None:
    one = new_sink()

    assert one.failed(500, None, 10.0, 0.5) == NOTHING
    assert one.permits(10.0)
    assert one.blocked_until(10.0) is None


def test_a_pause_is_as_long_as_it_is_asked_for() -> None:
    one = new_sink()

    assert one.failed(429, 100.0, 10.0, 0.5) == Verdict(is_gone=False, opens=False, pauses=True)
    assert not one.permits(109.9)
    assert one.permits(110.0)
    assert one.blocked_until(10.0) == 110.0


def test_the_longest_of_several_pauses_counts_and_begins_once() -> None:
    one = new_sink()

    verdicts = [one.failed(503, wait_s, 10.0, 0.5) for wait_s in (5.0, 50.0, 20.0)]

    assert [verdict.pauses for verdict in verdicts] == [True, False, False]
    assert one.paused_until == 60.0


def test_a_pause_of_no_length_doubles_each_time_up_to_half_a_minute_until_a_success() -> None:
    """Several failures of attempts that were under way together count once."""
    one, now, waits = new_sink(), 0.0, []
    for number in range(7):
        if number == 6:
            one.succeeded(now)
        for _ in range(3):
            one.failed(429, None, now, 0.5)
        waits.append(one.paused_until - now)
        now = one.paused_until

    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 1.0]


def test_a_wait_that_comes_with_another_status_is_its_deliverys_alone() -> None:
    one = new_sink()

    assert one.failed(500, 100.0, 10.0, 0.5) == NOTHING
    assert one.permits(10.0)


def test_events_that_fail_again_while_others_succeed_do_not_open_the_breaker() -> None:
    one = new_sink()
    one.failed(422, None, 10.0, 0.5)
    one.succeeded(11.0)

    assert [one.failed(422, None, 20.0, 0.5, 10.5) for _ in range(3 * FAILURES_MAX)] == [NOTHING] * (3 * FAILURES_MAX)
    assert one.permits(20.0)


def test_events_that_fail_again_open_the_breaker_if_nothing_has_succeeded_since() -> None:
    one = new_sink()
    one.succeeded(9.0)

    verdicts = [one.failed(500, None, 20.0, 0.5, 10.0) for _ in range(FAILURES_MAX)]

    assert [verdict.opens for verdict in verdicts] == [False] * (FAILURES_MAX - 1) + [True]


def test_a_probe_that_fails_opens_the_breaker_again_whatever_it_carries() -> None:
    one = new_sink()
    one.succeeded(9.0)
    for _ in range(FAILURES_MAX):
        one.failed(500, None, 10.0, 0.5)
    one.breaker.started()

    assert one.failed(500, None, 50.0, 0.5, 45.0).opens


def test_a_success_ends_its_failing_period() -> None:
    one = new_sink()
    one.failing.failed(10_000)
    one.succeeded(12.0)
    assert one.failing == FailingPeriod()


def test_it_is_remembered_while_its_owner_waits_to_hear_of_its_recovery() -> None:
    one = new_sink()
    assert one.expires_at is not None
    one.told_failing_since_ms = 1
    assert one.expires_at is None


def test_a_record_is_of_one_sink_and_one_credential() -> None:
    one = SinkHealth(1, CircuitBreaker(30.0), Header("X-Key", "key"))

    assert one.is_of(RequestSettings(sink_revision=1, credential=Header("X-Key", "key")))
    assert not one.is_of(RequestSettings(sink_revision=2, credential=Header("X-Key", "key")))
    assert not one.is_of(RequestSettings(sink_revision=1, credential=Header("X-Key", "another")))


def test_a_sink_that_is_gone_is_told_of_once_an_hour() -> None:
    one = new_sink()

    told = [one.failed(410, None, now, 0.5).is_gone for now in (0.0, 1.0, HOUR_S - 1, HOUR_S, HOUR_S + 1)]

    assert told == [True, False, False, True, False]
    assert not one.permits(2 * HOUR_S - 1)
    assert one.permits(2 * HOUR_S)


def test_one_that_is_gone_is_told_of_though_it_has_asked_for_a_pause() -> None:
    one = new_sink()
    one.failed(429, 100.0, 0.0, 0.5)

    assert one.failed(410, None, 1.0, 0.5).is_gone


def test_failures_in_a_row_open_its_breaker() -> None:
    one = new_sink()

    assert [one.failed(500, None, 0.0, 0.0).opens for _ in range(FAILURES_MAX)] == [False] * (FAILURES_MAX - 1) + [True]
    assert one.is_open
    assert one.blocked_until(0.0) == 30.0
    assert one.expires_at is None


STEPS = st.tuples(
    st.sampled_from(["ok", "fail", "wait"]), st.sampled_from([500, 429, 410]), st.none() | st.floats(0, 100), st.floats(0, 100)
)


@given(st.lists(STEPS, max_size=60))
def test_once_it_is_over_it_permits_as_one_that_never_was(history: list[tuple[str, int, float | None, float]]) -> None:
    """If no attempt is permitted, there is a time at which one is."""
    one, now = new_sink(), 0.0
    for what, status, wait_s, passed_s in history:
        if what == "wait":
            now += passed_s
        elif one.permits(now):
            one.breaker.started()
            if what == "ok":
                one.succeeded(now)
            else:
                one.failed(status, wait_s, now, 0.5)
        assert one.permits(now) or one.blocked_until(now) is not None
        if one.expires_at is not None and one.expires_at <= now:
            assert one.permits(now)
            assert one.breaker.failures == 0


# A subscription whose sink is changed, in virtual time


async def sent_at_once(world: World, count: int = 5) -> None:
    """Check that new events are delivered without delay."""
    records = world.publish(count, "alpha")
    await asyncio.sleep(0.5)
    assert deliveries(world, records) == [State.DELIVERED] * count
    assert {taken.url for taken in world.endpoints.log[-count:]} == {NEW}


async def blocked(world: World, mode: Mode) -> None:
    """Let the old sink do something after which it gets no requests for long."""
    await started(world, ALPHA)
    world.endpoints.modes[ALPHA.id] = mode
    world.publish(12, "alpha")
    await asyncio.sleep(0.5)
    waiting = world.publish(1, "alpha")
    await asyncio.sleep(0.4)
    assert deliveries(world, waiting) == []


@pytest.mark.parametrize("mode", [Mode.FAILING, Mode.THROTTLING, Mode.GONE], ids=["open breaker", "pause asked for", "gone"])
def test_it_is_sent_to_at_once(play: Play, mode: Mode) -> None:
    """Whatever held the old sink's deliveries back; the deliveries that were held back go out too."""

    async def scenario(world: World) -> None:
        world.registry.hears_of_gone = False
        await blocked(world, mode)
        world.endpoints.modes.clear()
        held_back = len(world.open_rows())
        world.change(replace(ALPHA, sink=NEW))
        await sent_at_once(world)
        # A delivery that has failed waits for its own time; a delivery that was never tried does not.
        assert len(world.open_rows()) < held_back
        world.registry.hears_of_gone = True
        await finished(world, within_s=3600.0)

    play(scenario, **LONG)


def test_it_may_be_changed_while_the_subscription_is_off(play: Play) -> None:
    async def scenario(world: World) -> None:
        await blocked(world, Mode.FAILING)
        world.endpoints.modes.clear()
        world.change(replace(ALPHA, state=DISABLED))
        await asyncio.sleep(0.1)
        world.change(replace(ALPHA, state=DISABLED, sink=NEW))
        await asyncio.sleep(0.1)
        world.change(replace(ALPHA, sink=NEW))
        await asyncio.sleep(0.1)
        await sent_at_once(world)
        await finished(world, within_s=3600.0)

    play(scenario, **LONG)


@pytest.mark.parametrize("mode", [Mode.SILENT, Mode.LATE_GONE, Mode.LATE_THROTTLING])
def test_late_answers_of_the_old_sink_are_not_the_new_ones(play: Play, mode: Mode) -> None:
    """A dozen attempts were under way when the sink was changed, and fail later."""

    async def scenario(world: World) -> None:
        await started(world, ALPHA)
        world.endpoints.modes[ALPHA.id] = mode
        world.publish(12, "alpha")
        await asyncio.sleep(0.5)
        world.endpoints.modes.clear()
        world.change(replace(ALPHA, sink=NEW))
        await asyncio.sleep(20.0)
        assert world.registry.told_gone == []
        await sent_at_once(world)
        await finished(world, within_s=3600.0)

    play(scenario, **LONG)


def test_a_late_success_of_the_old_sink_does_not_speak_for_the_new_one(play: Play) -> None:
    """The new sink's breaker opens all the same, since the new sink is the one that fails."""

    async def scenario(world: World) -> None:
        await started(world, ALPHA)
        world.endpoints.modes[ALPHA.id], world.endpoints.slow_s = Mode.SLOW, 10.0
        world.publish(1, "alpha")
        await asyncio.sleep(0.5)
        world.endpoints.modes[ALPHA.id] = Mode.FAILING
        world.change(replace(ALPHA, sink=NEW))
        await asyncio.sleep(0.1)
        world.publish(9, "alpha")
        await asyncio.sleep(12.0)
        failed = world.endpoints.requests
        world.publish(20, "alpha")
        await asyncio.sleep(1.0)
        # The tenth failure in a row opens the breaker; requests up to the concurrency limit are sent before the worker hears of it.
        assert world.endpoints.requests <= failed + 16
        world.publish(20, "alpha")
        await asyncio.sleep(100.0)
        assert world.endpoints.requests <= failed + 16
        world.endpoints.modes.clear()
        await finished(world, within_s=3600.0)

    play(scenario, **LONG)


def test_a_retry_after_of_the_old_sink_holds_no_delivery_back_that_hears_of_it_after_the_change(play: Play) -> None:
    """The delivery waits for the delay of the retry policy, and no longer."""

    async def scenario(world: World) -> None:
        await started(world, ALPHA)
        world.endpoints.modes[ALPHA.id] = Mode.LATE_THROTTLING
        records = world.publish(3, "alpha")
        await asyncio.sleep(0.5)
        world.endpoints.modes.clear()
        world.change(replace(ALPHA, sink=NEW))
        await asyncio.sleep(30.0)
        assert deliveries(world, records) == [State.DELIVERED] * 3
        await finished(world)

    play(scenario, **{**LONG, "HOOKTIDE_DELIVERY_RETRY_DELAYS_SECONDS": "1,1"})
