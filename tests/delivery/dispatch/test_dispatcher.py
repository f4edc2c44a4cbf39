"""Dispatcher: what it does with deliveries and answers, whatever the way out; here they go to a reader that pulls."""

import asyncio
from dataclasses import replace

import pytest

from services.delivery.dispatch.circuit_breaker import FAILURES_MAX
from services.delivery.dispatch.concurrency_limit import LIMIT_FIRST
from services.delivery.dispatch.fair_rounds import Consumer
from services.delivery.dispatch.lane import Lane
from services.delivery.dispatch.retry_policy import GONE
from services.delivery.dispatch.unproven_sinks import UnprovenSinks
from services.delivery.model import Delivery, Event, OwedRange, Phase, State, SubscriptionStatus, delivery_id
from services.delivery.request.credentials import Header
from services.delivery.request.request_settings import RequestSettings, Subscription
from services.delivery.transport.protocol import Answer, Outcome
from services.eventlog.record import Record
from services.runtime.clock import unix_ms
from tests.delivery.dispatch.dispatching import ACKNOWLEDGED, EXPIRED, Dispatching, Reader

SUBSCRIPTION = Subscription(f"sub_{1:032x}", f"con_{1:032x}", "", (), "", SubscriptionStatus.ACTIVE, 1, RequestSettings(sink_revision=1))
REVOKED = Answer(Outcome.STATUS, GONE, "the reader is gone for good", b"", "")


@pytest.fixture(autouse=True)
def no_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let attempts to unproven sinks start at once: no time passes in these tests."""
    monkeypatch.setattr(UnprovenSinks, "wait_s", lambda _self, _now: 0.0)


@pytest.fixture
async def dispatching() -> Dispatching:
    return Dispatching(subscription=SUBSCRIPTION)


def taken(dispatching: Dispatching, count: int) -> list[Delivery]:
    """Let the dispatcher take deliveries, and look whether it can send them."""
    lane = dispatching.dispatcher.lanes.lane(SUBSCRIPTION.id)
    made = []
    for position in range(1, count + 1):
        now_ms = unix_ms(dispatching.clock)
        record = Record(0, 0, position, f"evt_{now_ms:012x}{position:020x}", "order.created", "/shop", "", now_ms, b"event")
        made.append(
            Delivery(
                delivery_id(record.event_id, SUBSCRIPTION.id),
                record.event_id,
                0,
                0,
                position,
                record.type,
                now_ms,
                SUBSCRIPTION.id,
                SUBSCRIPTION.consumer_id,
                1,
                Event(record),
            )
        )
        dispatching.dispatcher.add(made[-1], lane)
    dispatching.dispatcher.pump()
    return made


async def test_deliveries_wait_for_a_reader_and_end_with_its_acknowledgement(dispatching: Dispatching) -> None:
    """A way out that cannot send now calls `ready` later; until then nothing is sent, and no attempt is used up."""
    made, reader = taken(dispatching, 3), dispatching.sender
    assert (len(reader.handed_out), {each.phase for each in made}) == (0, {Phase.QUEUED})

    reader.come()
    assert list(reader.handed_out) == [each.id for each in made]
    for each in made[:2]:
        reader.answer(each.id, ACKNOWLEDGED)

    assert dispatching.settled == made[:2]
    assert [(each.state, len(each.attempts)) for each in made] == [(State.DELIVERED, 1), (State.DELIVERED, 1), (State.PENDING, 0)]
    assert (dispatching.dispatcher.attempts.in_flight, dispatching.dispatcher.lanes.unrecorded_sent) == (1, 3)


async def test_all_answers_of_a_turn_are_taken_before_the_attempts_that_have_room_then_start(dispatching: Dispatching) -> None:
    made, reader = taken(dispatching, LIMIT_FIRST + 3), dispatching.sender
    reader.come()
    started = list(reader.handed_out)
    assert started == [each.id for each in made[:LIMIT_FIRST]]

    for each in started[:3]:
        reader.answer(each, ACKNOWLEDGED)
        assert list(reader.handed_out) == [other for other in started if other in reader.handed_out], "an attempt has started already"
    await asyncio.sleep(0)

    assert list(reader.handed_out) == [each.id for each in made[3:]]


async def test_a_lane_starts_with_few_attempts_at_once_and_gets_more_while_they_succeed(dispatching: Dispatching) -> None:
    made, reader = taken(dispatching, 2 * LIMIT_FIRST), dispatching.sender
    reader.come()
    for each in made[:LIMIT_FIRST]:
        reader.answer(each.id, ACKNOWLEDGED)
    assert dispatching.dispatcher.lanes.lane(SUBSCRIPTION.id).limit.limit == 2 * LIMIT_FIRST


async def test_attempts_that_time_out_together_halve_the_limit_once(dispatching: Dispatching) -> None:
    made, reader = taken(dispatching, LIMIT_FIRST), dispatching.sender
    reader.come()
    for each in made:
        reader.answer(each.id, EXPIRED)
    assert dispatching.dispatcher.lanes.lane(SUBSCRIPTION.id).limit.limit == LIMIT_FIRST // 2


async def test_another_credential_begins_a_new_record_of_the_sink_s_health(dispatching: Dispatching) -> None:
    lane, (first, late) = dispatching.dispatcher.lanes.lane(SUBSCRIPTION.id), taken(dispatching, 2)
    dispatching.sender.come()
    dispatching.sender.answer(first.id, EXPIRED)
    assert lane.sink_health is not None

    dispatching.subscription = replace(SUBSCRIPTION, settings=RequestSettings(sink_revision=1, credential=Header("x-key", "new")))
    dispatching.dispatcher.subscription_changed(SUBSCRIPTION.id)
    dispatching.sender.answer(late.id, EXPIRED)
    assert lane.sink_health is None


async def test_what_a_reader_leaves_behind_waits_again_and_was_no_attempt(dispatching: Dispatching) -> None:
    made = taken(dispatching, 2)
    dispatching.sender.come()

    dispatching.sender.leave()

    assert [(each.phase, each.attempts, each.sent_at) for each in made] == [(Phase.WITHDRAWN, [], None)] * 2
    assert dispatching.settled == made
    assert (dispatching.dispatcher.attempts.in_flight, dispatching.dispatcher.lanes.unrecorded_sent) == (0, 0)


async def test_what_a_reader_does_not_acknowledge_in_time_is_tried_again_and_given_up_in_the_end(dispatching: Dispatching) -> None:
    """The retry policy decides for every way out; here it permits two attempts."""
    (first,) = taken(dispatching, 1)
    dispatching.sender.come()
    dispatching.sender.answer(first.id, EXPIRED)
    assert (first.phase, [attempt.outcome for attempt in first.attempts]) == (Phase.RETRYING, [Outcome.TIMEOUT])
    assert first.due_ms > dispatching.dispatcher.due.now_ms()

    # The delivery comes back from its row.
    (again,) = taken(dispatching, 1)
    again.attempts.extend(first.attempts)
    dispatching.sender.answer(again.id, EXPIRED)
    assert (again.phase, again.state, len(again.attempts)) == (Phase.ENDED, State.EXHAUSTED, 2)


async def test_only_a_failure_makes_a_record_of_a_sink_s_health_and_another_sink_has_none(dispatching: Dispatching) -> None:
    lane, (first, second, late) = dispatching.dispatcher.lanes.lane(SUBSCRIPTION.id), taken(dispatching, 3)
    dispatching.sender.come()
    dispatching.sender.answer(first.id, ACKNOWLEDGED)
    assert lane.sink_health is None
    dispatching.sender.answer(second.id, EXPIRED)
    assert lane.sink_health is not None
    assert lane.sink_health.sink_revision == SUBSCRIPTION.settings.sink_revision

    dispatching.subscription = replace(SUBSCRIPTION, settings=RequestSettings(sink_revision=2))
    dispatching.dispatcher.subscription_changed(SUBSCRIPTION.id)
    dispatching.sender.answer(late.id, EXPIRED)
    assert lane.sink_health is None


async def test_a_way_out_that_is_gone_is_reported_once_with_its_revision(dispatching: Dispatching) -> None:
    made = taken(dispatching, 3)
    dispatching.sender.come()
    for each in made:
        dispatching.sender.answer(each.id, REVOKED)
    assert dispatching.sinks.told == [("gone", SUBSCRIPTION.id)]


@pytest.mark.parametrize(("event_type", "told"), [("order.created", ["failing", "recovered"]), ("hooktide.delivery.exhausted", [])])
async def test_a_sink_that_fails_and_recovers_is_told_once_each_and_notices_tell_nothing(
    dispatching: Dispatching, event_type: str, told: list[str]
) -> None:
    """More failures than the breaker tolerates, over two openings; then a probe succeeds."""
    dispatching.sender.come()
    lane = dispatching.dispatcher.lanes.lane(SUBSCRIPTION.id)
    for number in range(FAILURES_MAX + 2):
        (each,) = taken(dispatching, 1)
        each.event_type = event_type
        if number >= FAILURES_MAX:
            let_probe_start(dispatching, lane)
        dispatching.sender.answer(each.id, EXPIRED)
    (probe,) = taken(dispatching, 1)
    probe.event_type = event_type
    let_probe_start(dispatching, lane)
    dispatching.sender.answer(probe.id, ACKNOWLEDGED)
    assert lane.sink_health is not None
    assert not lane.sink_health.is_open
    assert [what for what, _ in dispatching.sinks.told] == told


def let_probe_start(dispatching: Dispatching, lane: Lane) -> None:
    """End the wait of an open breaker now, and start the attempt that waits for it."""
    assert lane.sink_health is not None
    assert lane.sink_health.is_open
    lane.sink_health.breaker.open_until = dispatching.clock.monotonic()
    dispatching.dispatcher.subscription_changed(SUBSCRIPTION.id)
    dispatching.dispatcher.pump()


async def test_deliveries_of_a_deleted_subscription_are_cancelled_and_the_way_out_forgets_it(dispatching: Dispatching) -> None:
    """The delivery that the reader has already keeps its end."""
    (held,) = taken(dispatching, 1)
    dispatching.sender.come()
    dispatching.sender.is_there = False
    queued = taken(dispatching, 2)
    dispatching.subscription = None

    dispatching.dispatcher.cancel(SUBSCRIPTION.id)

    assert [each.state for each in queued] == [State.CANCELLED] * 2
    assert dispatching.sender.forgotten == [SUBSCRIPTION.id]
    dispatching.sender.answer(held.id, ACKNOWLEDGED)
    assert held.state is State.DELIVERED


@pytest.mark.parametrize("error", [ValueError, RecursionError, AttributeError])
async def test_an_event_that_the_way_out_cannot_encode_is_given_up_and_the_next_goes_on(error: type[Exception]) -> None:
    """Whatever an event breaks, only its own delivery ends."""

    class Encoder(Reader):
        """A reader that has a form for all events but one."""

        def send(self, delivery: Delivery, *rest: object) -> None:
            """Refuse the first event of the log."""
            if delivery.position == 1:
                message = "there is no such form"
                raise error(message)
            super().send(delivery, *rest)  # type: ignore[arg-type]  # passed on

    dispatching = Dispatching(sender=Encoder(is_there=True), subscription=SUBSCRIPTION)
    bad, good = taken(dispatching, 2)
    assert (bad.state, bad.attempts[0].error) == (State.EXHAUSTED, "the event could not be encoded: there is no such form")
    assert good.phase is Phase.IN_FLIGHT
    assert dispatching.dispatcher.lanes.unrecorded_sent == 1


async def test_a_paused_subscription_gets_nothing_and_its_queue_becomes_rows(dispatching: Dispatching) -> None:
    made = taken(dispatching, 2)
    dispatching.subscription = replace(SUBSCRIPTION, status=SubscriptionStatus.PAUSED)
    dispatching.dispatcher.subscription_changed(SUBSCRIPTION.id)
    assert [each.phase for each in made] == [Phase.SPILLED] * 2
    dispatching.sender.come()
    assert not dispatching.sender.handed_out


async def test_once_closed_it_starts_nothing_and_lets_what_is_under_way_end(dispatching: Dispatching) -> None:
    under_way = taken(dispatching, 1)
    dispatching.sender.come()
    dispatching.dispatcher.close()
    waiting = taken(dispatching, 1)
    assert (dispatching.sender.closed, waiting[0].phase, dispatching.dispatcher.attempts.in_flight) == (True, Phase.QUEUED, 1)

    dispatching.sender.answer(under_way[0].id, ACKNOWLEDGED)

    await asyncio.wait_for(dispatching.dispatcher.attempts.idle(), 10)
    assert waiting[0].phase is Phase.QUEUED


async def test_a_consumer_may_hold_as_much_memory_as_is_free_so_that_others_find_room(dispatching: Dispatching) -> None:
    lanes = dispatching.dispatcher.lanes
    held, other = lanes.lane(SUBSCRIPTION.id).consumer, Consumer("con_other")
    taken(dispatching, 3)
    assert (held.held, held.held_bytes) == (3, lanes.held_bytes)
    assert lanes.consumer_has_room(held)

    # As if large events were held: half of all memory is this consumer's.
    held.held_bytes = lanes.held_bytes = 16 * 1024 * 1024
    assert not lanes.consumer_has_room(held)
    assert lanes.consumer_has_room(other)


async def test_lanes_that_catch_up_leave_memory_for_what_is_routed_to_other_consumers(dispatching: Dispatching) -> None:
    """Thousands of them read pages; each still reads one event at a time, so that it makes progress."""
    lanes = dispatching.dispatcher.lanes
    lane, other = lanes.lane(SUBSCRIPTION.id), Consumer("con_other")
    empty, others = Lane("sub_empty", lane.consumer, is_proven=True), Lane("sub_other", other, is_proven=True)
    taken(dispatching, 1)
    lane.is_proven = True
    for each in (lane, empty, others):
        each.ranges.append(OwedRange(each.subscription_id, 0, at=4))
    assert lanes.room_to_refill(lane) > 1
    whole_page = lanes.room_for_page(empty)
    assert whole_page > 1

    # As if large events were held: half of all memory is this consumer's.
    lane.consumer.held_bytes = lanes.held_bytes = 16 * 1024 * 1024
    assert (lanes.room_for_page(lane), lanes.room_to_refill(lane)) == (0, 0)
    assert (lanes.room_for_page(empty), lanes.room_to_refill(empty)) == (1, 1)
    assert lanes.room_for_page(others) == whole_page
    assert lanes.consumer_has_room(other)


async def test_a_consumer_holds_a_bounded_number_of_deliveries(dispatching: Dispatching) -> None:
    lanes = dispatching.dispatcher.lanes
    consumer = lanes.lane(SUBSCRIPTION.id).consumer
    consumer.held = 9_999
    assert lanes.consumer_has_room(consumer)
    consumer.held += 1
    assert not lanes.consumer_has_room(consumer)
