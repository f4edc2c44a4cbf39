"""Changes: subscriptions that change while their deliveries are in any phase."""

import asyncio
import logging
from dataclasses import replace

import pytest
import structlog
from structlog.testing import capture_logs

from services.delivery.model import State
from tests.delivery.conftest import Play
from tests.simulation.end_checks import check_end
from tests.simulation.endpoints import Mode
from tests.simulation.registry import DISABLED, PAUSED, Wish
from tests.simulation.scenarios import ALPHA, BETA, deliveries, finished, started, started_failing
from tests.simulation.world import CONSUMERS, World


def end(world: World, *, by_deletion: bool) -> None:
    """Delete the subscription, or disable it."""
    if by_deletion:
        world.delete(ALPHA.id)
    else:
        world.change(replace(ALPHA, state=DISABLED))


by_deletion = pytest.mark.parametrize("by_deletion", [True, False], ids=["deleted", "disabled"])


@by_deletion
@pytest.mark.parametrize("bound", ["5", "100"])
def test_what_waits_is_cancelled(play: Play, bound: str, by_deletion: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """The deliveries wait in memory, wait in the ledger, are under way, or are due for a later retry."""

    async def scenario(world: World) -> None:
        await started(world, ALPHA, BETA)
        world.endpoints.modes[ALPHA.id] = Mode.FAILING
        retried = world.publish(5, "alpha")
        await asyncio.sleep(0.2)
        world.endpoints.modes[ALPHA.id] = Mode.SILENT
        waiting = world.publish(60, "alpha")
        await asyncio.sleep(0.2)
        end(world, by_deletion=by_deletion)
        others = world.publish(10, "beta")
        await asyncio.sleep(2.0)
        requests = world.endpoints.requests
        await finished(world, within_s=60.0)
        assert world.endpoints.requests == requests
        assert deliveries(world, others, BETA) == [State.DELIVERED] * 10
        assert deliveries(world, retried + waiting) == [State.CANCELLED] * 65

    play(scenario, HOOKTIDE_DELIVERY_LANE_PENDING_MAX=bound, HOOKTIDE_DELIVERY_RETRY_DELAYS_SECONDS="600,600")


@by_deletion
@pytest.mark.parametrize("mode", [Mode.SLOW, Mode.SILENT])
def test_what_is_under_way_ends_by_its_own_answer(play: Play, mode: Mode, by_deletion: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """A success counts; a failure is not tried again."""

    async def scenario(world: World) -> None:
        await started(world, ALPHA)
        world.endpoints.modes[ALPHA.id], world.endpoints.slow_s = mode, 10.0
        records = world.publish(2, "alpha")
        await asyncio.sleep(0.5)
        end(world, by_deletion=by_deletion)
        await finished(world, within_s=60.0)
        assert deliveries(world, records) == [State.DELIVERED if mode is Mode.SLOW else State.CANCELLED] * 2

    play(scenario)


@by_deletion
def test_what_is_being_recorded_before_it_is_sent_is_cancelled(play: Play, by_deletion: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """After a restart, older events wait for a flush before they are sent; the subscription ends during that wait."""

    async def scenario(world: World) -> None:
        world.change(ALPHA)
        records = world.publish(20, "alpha")
        world.loop.slow_jobs["flush"] = (1.0, 1.0)
        world.route_freely()
        await world.start()
        await asyncio.sleep(1.0)
        end(world, by_deletion=by_deletion)
        await asyncio.sleep(5.0)
        world.loop.slow_jobs.clear()
        await finished(world, within_s=60.0)
        assert deliveries(world, records) == [State.CANCELLED] * 20
        assert world.endpoints.requests == 0

    play(scenario, HOOKTIDE_DELIVERY_LANE_PENDING_MAX="100")


@by_deletion
@pytest.mark.parametrize("others", [0, 250], ids=["alone", "in a later part of a fan-out"])
def test_what_waits_to_be_routed_when_its_subscription_goes_is_not_left_pending(
    play: Play,
    others: int,
    by_deletion: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """Routing waits for room before an event, or in the middle of its fan-out, while the subscription ends."""

    async def scenario(world: World) -> None:
        for number in range(others):
            world.change(replace(ALPHA, id=f"sub_{number:032x}"))
        world.change(ALPHA)
        await world.start()
        await asyncio.sleep(1.0)
        world.loop.slow_jobs["flush"] = (1.0, 0.1)
        records = world.publish(20, "alpha")
        await asyncio.sleep(0.5)
        assert world.endpoints.requests > 0
        end(world, by_deletion=by_deletion)
        await asyncio.sleep(2.0)
        world.loop.slow_jobs.clear()
        await finished(world, within_s=60.0)
        # An attempt that began before the subscription ended counts by its own answer.
        assert set(deliveries(world, records)) <= {State.DELIVERED, State.CANCELLED}
        assert len(deliveries(world, records)) < 20

    play(scenario, HOOKTIDE_DELIVERY_LANE_PENDING_MAX="100", HOOKTIDE_DELIVERY_IN_FLIGHT_MAX="64")


@by_deletion
@pytest.mark.parametrize("after_s", [0.5, 1.5], ids=["not committed", "not heard of"])
def test_what_is_being_written_as_unfinished_is_cancelled(
    play: Play,
    after_s: float,
    by_deletion: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """The subscription ends in the middle of the commit that writes its deliveries."""

    async def scenario(world: World) -> None:
        await started(world, replace(ALPHA, state=PAUSED))
        world.loop.slow_jobs["flush"] = (1.0, 1.0)
        records = world.publish(20, "alpha")
        await asyncio.sleep(after_s)
        end(world, by_deletion=by_deletion)
        await asyncio.sleep(5.0)
        world.loop.slow_jobs.clear()
        await finished(world, within_s=60.0)
        assert deliveries(world, records) == [State.CANCELLED] * 20

    play(scenario)


@by_deletion
def test_what_has_gone_while_no_worker_ran_is_cancelled_at_the_next_start(play: Play, by_deletion: bool) -> None:  # noqa: FBT001 - a parameter of the test
    async def scenario(world: World) -> None:
        await started(world, replace(ALPHA, state=PAUSED))
        records = world.publish(30, "alpha")
        await asyncio.sleep(1.0)
        await world.stop(crash=True)
        end(world, by_deletion=by_deletion)
        await world.start()
        await finished(world, within_s=60.0)
        assert deliveries(world, records) == [State.CANCELLED] * 30

    play(scenario)


def test_thousands_are_cancelled_while_others_keep_the_recorder_busy(play: Play) -> None:
    """Cancelling waits for its own rows to be recorded, not for a moment without any unrecorded rows."""

    async def scenario(world: World) -> None:
        await started(world, replace(ALPHA, state=PAUSED), BETA)
        records = world.publish(2500, "alpha")
        await asyncio.sleep(5.0)
        # Each flush takes longer than the time until the next event.
        world.loop.slow_jobs["flush"] = (0.05, 0.05)
        world.delete(ALPHA.id)
        for _ in range(400):
            world.publish(1, "beta")
            await asyncio.sleep(0.02)
        assert len(deliveries(world, records)) == 2500
        await finished(world, within_s=60.0)

    play(scenario)


def test_what_is_enabled_again_while_it_is_being_cancelled_is_not_left_behind(play: Play) -> None:
    """Deliveries that were cancelled so far stay cancelled, the others are delivered."""

    async def scenario(world: World) -> None:
        await started(world, replace(ALPHA, state=PAUSED))
        records = world.publish(1500, "alpha")
        await asyncio.sleep(10.0)
        await world.stop(crash=True)
        world.change(replace(ALPHA, state=DISABLED))
        world.loop.slow_jobs["flush"] = (0.5, 0.5)
        await world.start()
        await asyncio.sleep(1.5)
        world.change(ALPHA)
        await asyncio.sleep(5.0)
        world.loop.slow_jobs.clear()
        await finished(world, within_s=120.0)
        states = deliveries(world, records)
        assert {State.CANCELLED, State.DELIVERED} == set(states)
        assert len(states) == 1500

    play(scenario, HOOKTIDE_DELIVERY_LANE_PENDING_MAX="4000")


def test_a_changed_sink_is_called_from_the_next_attempt_on(play: Play) -> None:
    """Deliveries that were routed before the change go to the new sink."""

    async def scenario(world: World) -> None:
        await started_failing(world, 2, for_s=0.2)
        world.endpoints.modes.clear()
        world.change(replace(ALPHA, sink="https://consumer.example/new"))
        await finished(world, within_s=60.0)
        urls = {(sent.number, sent.url) for sent in world.endpoints.log}
        assert urls == {(1, "https://consumer.example/hooks"), (2, "https://consumer.example/new")}

    play(scenario, HOOKTIDE_DELIVERY_RETRY_DELAYS_SECONDS="1,1")


@pytest.mark.parametrize("moment", ["waiting", "being written", "under way"])
def test_what_failed_at_a_former_sink_is_due_at_once_at_its_successor(play: Play, moment: str) -> None:
    """Whether it waits for its retry, is just being written, or fails after the change. The former sink's pause binds nobody either."""

    async def scenario(world: World) -> None:
        await started(world, ALPHA)
        modes = {"waiting": Mode.FAILING, "being written": Mode.FAILING, "under way": Mode.LATE_THROTTLING}
        world.endpoints.modes[ALPHA.id] = modes[moment]
        if moment == "being written":
            world.loop.slow_jobs["flush"] = (0.5, 0.5)
        records = world.publish(3, "alpha")
        await asyncio.sleep(5.0 if moment == "waiting" else 0.3)
        assert world.endpoints.requests == 3
        world.endpoints.modes.clear()
        world.change(replace(ALPHA, sink="https://consumer.example/new"))
        await asyncio.sleep(10.0)
        assert deliveries(world, records) == [State.DELIVERED] * 3
        assert [(taken.number, taken.url) for taken in world.endpoints.log[3:]] == [(2, "https://consumer.example/new")] * 3
        await finished(world)

    play(scenario, HOOKTIDE_DELIVERY_LANE_PENDING_MAX="100", HOOKTIDE_DELIVERY_RETRY_DELAYS_SECONDS="600,600")


@pytest.mark.parametrize("is_ordered", [False, True], ids=["unordered", "ordered"])
@pytest.mark.parametrize(("sink", "token"), [("https://consumer.example/new", "one"), (ALPHA.sink, "another")], ids=["sink", "credential"])
def test_a_delivery_that_failed_at_a_former_sink_is_due_at_once_if_the_sink_changed_while_no_worker_ran(
    play: Play,
    sink: str,
    token: str,
    is_ordered: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """The former sink's open breaker holds back no attempt either."""

    async def scenario(world: World) -> None:
        wish = replace(ALPHA, token="one", is_ordered=is_ordered)
        await started(world, wish)
        world.endpoints.modes[ALPHA.id] = Mode.FAILING
        records = world.publish(40, "alpha")
        await asyncio.sleep(5.0)
        assert world.store.open_rows()
        failed = world.endpoints.requests
        await world.stop(crash=True)
        world.endpoints.modes.clear()
        world.change(replace(wish, sink=sink, token=token))
        await world.start()
        await asyncio.sleep(10.0)
        assert deliveries(world, records) == [State.DELIVERED] * 40
        assert world.endpoints.requests == failed + 40
        await finished(world)

    play(scenario, HOOKTIDE_DELIVERY_LANE_PENDING_MAX="100", HOOKTIDE_DELIVERY_RETRY_DELAYS_SECONDS="600,600")


def test_a_restart_brings_no_attempt_forward_at_the_same_sink(play: Play) -> None:
    """Other settings of the subscription may change, and the deliveries may have failed at a former sink before."""

    async def scenario(world: World) -> None:
        await started_failing(world, 3, for_s=5.0)
        for number, requests in enumerate((6, 6, 6)):
            await world.stop(crash=True)
            world.change(replace(ALPHA, sink="https://consumer.example/new", rate_per_second=50.0 + number))
            await world.start()
            await asyncio.sleep(60.0)
            assert world.endpoints.requests == requests
        world.endpoints.modes.clear()
        await finished(world, within_s=3600.0)

    play(scenario, HOOKTIDE_DELIVERY_LANE_PENDING_MAX="100", HOOKTIDE_DELIVERY_RETRY_DELAYS_SECONDS="600,600")


def test_another_change_brings_no_attempt_forward_and_a_new_sink_has_waits_of_its_own(play: Play) -> None:
    """A failure counts as an attempt wherever it happened."""

    async def scenario(world: World) -> None:
        records = await started_failing(world, 3, for_s=5.0)
        world.change(replace(ALPHA, types=("alpha", "beta"), rate_per_second=50.0))
        await asyncio.sleep(60.0)
        assert world.endpoints.requests == 3
        world.change(replace(ALPHA, sink="https://consumer.example/new"))
        await asyncio.sleep(60.0)
        assert world.endpoints.requests == 6
        await finished(world, within_s=3600.0)
        assert deliveries(world, records) == [State.EXHAUSTED] * 3
        assert world.endpoints.requests == 9

    play(scenario, HOOKTIDE_DELIVERY_LANE_PENDING_MAX="100", HOOKTIDE_DELIVERY_RETRY_DELAYS_SECONDS="600,600")


@pytest.mark.parametrize("later", [50.0, None], ids=["raised", "lifted"])
def test_a_rate_that_is_granted_later_counts_at_once(play: Play, later: float | None) -> None:
    """A waiting delivery does not wait for its turn by the old rate."""

    async def scenario(world: World) -> None:
        await started(world, replace(ALPHA, rate_per_second=1 / 60))
        world.publish(20, "alpha")
        await asyncio.sleep(150.0)
        assert world.endpoints.requests == 3
        world.change(replace(ALPHA, rate_per_second=later))
        await asyncio.sleep(3.0)
        assert world.endpoints.requests == 20
        await finished(world)

    play(scenario)


def test_a_rate_that_is_lowered_counts_from_the_next_request_on(play: Play) -> None:
    async def scenario(world: World) -> None:
        await started(world, replace(ALPHA, rate_per_second=10.0))
        world.publish(40, "alpha")
        await asyncio.sleep(1.0)
        world.change(replace(ALPHA, rate_per_second=0.1))
        await asyncio.sleep(1.0)
        requests = world.endpoints.requests
        assert 5 <= requests < 20
        await asyncio.sleep(100.0)
        assert requests + 9 <= world.endpoints.requests <= requests + 11
        world.change(replace(ALPHA, rate_per_second=None))
        await finished(world)

    play(scenario)


def test_types_changed_between_two_events_count_for_the_second(play: Play) -> None:
    """Events that are already routed stay routed."""

    async def scenario(world: World) -> None:
        await started(world, ALPHA)
        first = world.publish(1, "alpha")
        await asyncio.sleep(2.0)  # while a read lease runs, a change counts only for events after its answer
        world.change(replace(ALPHA, types=("gamma",)))
        second = world.publish(1, "alpha") + world.publish(1, "gamma")
        await finished(world, within_s=60.0)
        assert deliveries(world, first) == [State.DELIVERED]
        assert {sent.key[0] for sent in world.endpoints.log} == {first[0].event_id, second[1].event_id}

    play(scenario)


def test_an_event_is_routed_by_the_subscriptions_as_of_its_acceptance(play: Play) -> None:
    """However late the watch is, the event reaches a subscription made just before it, and none deleted just before it."""

    async def scenario(world: World) -> None:
        await started(world, ALPHA)
        for number in range(20):
            made = world.change(Wish(f"sub_{number:032x}", CONSUMERS[1], ("alpha",)))
            record = world.publish(1, "alpha")[0]
            world.delete(made.id)
            world.publish(1, "alpha")
            await asyncio.sleep(0.3)
            assert (record.event_id, ALPHA.id) in world.endpoints.sent
        await finished(world, within_s=60.0)
        check_end(world)

    play(scenario)


def test_an_audience_gets_what_is_its_own_and_nobody_else_does(play: Play) -> None:
    async def scenario(world: World) -> None:
        own, other = replace(ALPHA, types=()), Wish(BETA.id, CONSUMERS[1])
        await started(world, own, other)
        for audience in ("", CONSUMERS[0], CONSUMERS[1], CONSUMERS[2]):
            world.publish(3, "alpha", audience)
        await finished(world, within_s=60.0)
        by_subscription = {wish.id: [key for key in world.endpoints.sent if key[1] == wish.id] for wish in (own, other)}
        assert [len(keys) for keys in by_subscription.values()] == [6, 6]
        check_end(world)

    play(scenario)


def test_a_new_snapshot_takes_the_place_of_the_old_one(play: Play) -> None:
    """The replica compares snapshots to find changes that the registry has forgotten."""

    async def scenario(world: World) -> None:
        await started(world, ALPHA, BETA, replace(ALPHA, id="sub_" + "c" * 32, state=PAUSED))
        world.endpoints.modes[BETA.id] = Mode.FAILING
        gone = world.publish(3, "beta")
        waiting = world.publish(1, "alpha")
        await asyncio.sleep(0.5)
        world.registry.set_reachable(reachable=False)
        await asyncio.sleep(0.5)
        world.delete(BETA.id)
        resumed = world.change(replace(ALPHA, id="sub_" + "c" * 32))
        world.registry.compact()
        world.return_registry()
        await finished(world, within_s=60.0)
        assert deliveries(world, gone, BETA) == [State.CANCELLED] * 3
        assert deliveries(world, waiting, resumed) == [State.DELIVERED]

    play(scenario, HOOKTIDE_DELIVERY_RETRY_DELAYS_SECONDS="600,600")


@pytest.mark.parametrize("secret", ["whsec_%%%", "whsec_", "whsec_ä"], ids=["no base64", "empty", "no ascii"])
@pytest.mark.parametrize("from_the_start", [True, False], ids=["in the snapshot", "by a change"])
def test_what_cannot_be_signed_waits_and_the_others_go_on(play: Play, secret: str, from_the_start: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """An unreadable secret holds its own subscription back, with an alarm, until a readable one comes."""

    async def scenario(world: World) -> None:
        unreadable = replace(ALPHA, secret=secret)
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
        with capture_logs() as lines:
            await started(world, unreadable if from_the_start else ALPHA, BETA)
            world.change(unreadable)
            await asyncio.sleep(1.0)
        alarms = [line for line in lines if line["event"] == "subscription.unreadable"]
        assert {(alarm["log_level"], alarm["subscription"]) for alarm in alarms} == {("error", ALPHA.id)}
        assert secret not in str(alarms)
        waiting, others = world.publish(20, "alpha"), world.publish(10, "beta")
        await asyncio.sleep(60.0)
        assert deliveries(world, waiting) == []
        assert deliveries(world, others, BETA) == [State.DELIVERED] * 10
        assert world.endpoints.requests == 10
        world.change(ALPHA)
        await finished(world)
        assert deliveries(world, waiting) == [State.DELIVERED] * 20

    play(scenario)
