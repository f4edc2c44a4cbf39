"""Invariants: what the judge of a campaign calls a breach."""

import pytest

from tests.torture.checking_receiver import Evidence, Seen, Witness
from tests.torture.invariants import Course, Subscribed, judge_arrivals
from tests.torture.planned_events import Pattern, Plan

KILLED_AT = 10.0


def course(*seen: Seen, delivery_ends: tuple[float, ...] = (KILLED_AT,)) -> Course:
    """Return a campaign in which one endpoint has seen these attempts of one event, in the order of its answers."""
    witness = Witness("slow", "http://127.0.0.1", pattern=Pattern(0), evidence=Evidence(Plan(1), ("con_1",)), seen={"evt_1": list(seen)})
    return Course([1.0, 1.0], subscribed=[Subscribed(witness)], delivery_ends=list(delivery_ends))


@pytest.mark.parametrize("delivery_ends", [(KILLED_AT,), ()], ids=["after a kill", "without a kill"])
def test_an_answer_to_a_killed_process_may_come_after_the_next_attempt(delivery_ends: tuple[float, ...]) -> None:
    """Without a kill two attempts at a time are a breach."""
    slow, quick, later = Seen(9.9, 10.9, 404, 1), Seen(10.4, 10.4, 404, 1), Seen(11.5, 11.5, 200, 2)
    _, broken = judge_arrivals(course(quick, slow, later, delivery_ends=delivery_ends))
    assert [each[:2] for each in broken] == ([] if delivery_ends else ["I5"])


def test_an_attempt_after_a_2xx_is_a_breach_unless_delivery_ended_in_between() -> None:
    before, after = Seen(9.0, 9.1, 200, 1), Seen(12.0, 12.0, 200, 1)
    assert judge_arrivals(course(before, after)) == (1, [])
    repeated, broken = judge_arrivals(course(before, after, delivery_ends=()))
    assert (repeated, [each[:2] for each in broken]) == (1, ["I3"])
