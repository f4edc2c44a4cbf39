import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.delivery.model import Attempt
from services.delivery.notices import notice as notices
from services.delivery.notices.notice import Notice, notice_of, row_of
from services.delivery.notices.notice_client import event_of
from services.delivery.transport.protocol import Outcome
from services.runtime.event_types import is_reserved
from services.runtime.ids import id_text
from tests.delivery.notices.examples import CONSUMER, NOW_MS, SUBSCRIPTION, ended_delivery, notice

STATUS_503 = Attempt(NOW_MS - 100, 90, Outcome.STATUS, 503, "the server answered 503", "")


def failing(since_ms: int = NOW_MS - 60_000) -> Notice:
    return notices.failing(CONSUMER, SUBSCRIPTION, 3, since_ms=since_ms, now_ms=NOW_MS, failures=10, last=STATUS_503)


def every_notice() -> list[Notice]:
    return [
        failing(),
        notices.recovered(CONSUMER, SUBSCRIPTION, 3, failing_since_ms=NOW_MS - 60_000, now_ms=NOW_MS),
        notices.disabled(CONSUMER, SUBSCRIPTION, 3, since_ms=NOW_MS, reason="The sink answered 410 Gone."),
        notices.expiring(CONSUMER, SUBSCRIPTION, "0:17", waiting_since_ms=NOW_MS - 60_000, expires_ms=NOW_MS + 60_000, now_ms=NOW_MS),
        notice(),
        notices.suppressed(notice(), 7),
    ]


@pytest.mark.parametrize("made", every_notice(), ids=lambda made: made.type)
def test_every_notice_is_an_event_of_its_consumer_that_json_readers_understand(made: Notice) -> None:
    event = event_of(made, "/hooktide/reg_1")
    assert is_reserved(event.type)
    assert (event.id, event.source, event.attributes["audience"].ce_string) == (made.id, "/hooktide/reg_1", CONSUMER)
    assert event.attributes["datacontenttype"].ce_string == "application/json"
    assert event.attributes["time"].ce_timestamp.ToMilliseconds() == made.time_ms
    assert ("subject" in event.attributes) is bool(made.subject)
    assert json.loads(event.text_data)["reason" if made.type != notices.RECOVERED else "failing_since"]


def test_a_failing_subscription_s_notice_tells_since_when_and_why() -> None:
    assert json.loads(failing().data) == {
        "subscription_id": SUBSCRIPTION,
        "state": "failing",
        "since": "2030-03-17T17:45:40.123Z",
        "failures": 10,
        "last_status": 503,
        "reason": "the sink answered with the status 503",
    }


def test_an_exhausted_delivery_s_notice_names_delivery_and_event() -> None:
    delivery = ended_delivery()
    delivery.attempts.append(Attempt(NOW_MS, 5, Outcome.CONNECT, 0, "nobody listens", ""))
    made = notices.exhausted(delivery)
    assert made is not None
    assert json.loads(made.data) == {
        "subscription_id": SUBSCRIPTION,
        "state": "exhausted",
        "since": "2030-03-17T17:46:40.123Z",
        "delivery_id": id_text("dlv", delivery.id),
        "event_id": delivery.event_id,
        "event_type": "order.created",
        "attempts": 1,
        "last_status": 0,
        "reason": "nobody listens",
    }
    assert json.loads(notice().data)["reason"] == "the delivery expired before its first attempt"


def test_a_delivery_of_a_notice_makes_no_notice() -> None:
    assert notices.exhausted(ended_delivery("hooktide.delivery.exhausted")) is None


def test_an_id_follows_from_the_transition_alone() -> None:
    assert failing().id == failing().id
    assert failing(NOW_MS - 1).id != failing().id
    assert len({made.id for made in every_notice()}) == len(every_notice())


@given(st.text(), st.text(max_size=20), st.integers(0, NOW_MS), st.text(max_size=600))
def test_a_notice_comes_back_from_its_row_byte_by_byte(subject: str, consumer_id: str, now_ms: int, reason: str) -> None:
    """The log takes a notice with other bytes for another one."""
    made = notices.disabled(consumer_id, subject, 1, since_ms=now_ms, reason=reason)
    assert notice_of(row_of(made)) == made
