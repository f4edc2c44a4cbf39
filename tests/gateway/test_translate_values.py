from datetime import UTC, datetime, timedelta, timezone

import pytest
from hooktide.delivery.v1 import delivery_pb2
from hypothesis import given
from hypothesis import strategies as st

from gateway.translate.deliveries import list_deliveries_request
from gateway.translate.events import list_events_request
from gateway.translate.timestamps import parse_time, time_json
from services.runtime.consumer_scope import EVERYONE, OwnConsumer
from services.runtime.errors import Failure

OWN = OwnConsumer("con_" + "1" * 32)
OFFSETS = st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@given(st.datetimes(datetime(2, 1, 1), datetime(9998, 12, 31), timezones=OFFSETS))  # noqa: DTZ001 - the bounds take the zone drawn
def test_a_time_of_any_zone_is_shown_in_utc(moment: datetime) -> None:
    shown = time_json(parse_time(moment.isoformat()))
    assert shown.endswith("Z")
    assert datetime.fromisoformat(shown) == moment.astimezone(UTC)


@pytest.mark.parametrize("text", ["2030-01-31t12:00:00z", "2030-01-31T12:00:00.123456789+02:00"])
def test_a_time_may_be_written_in_every_way_of_rfc_3339(text: str) -> None:
    assert parse_time(text).seconds > 0


@pytest.mark.parametrize(
    "text",
    [
        *("", "now", "1900000000", "2030-01-31", "2030-01-31T12:00:00", "2030-01-31 12:00:00Z", "2030-02-30T12:00:00Z"),
        *("2030-01-31T24:00:00Z", "2030-01-31T12:00:60Z", "2030-01-31T12:00:00+24:00", "2030-01-31T12:00:00.1234567890Z"),
        *(
            "0000-01-01T00:00:00Z",
            "0001-01-01T00:00:00+10:00",
            "9999-12-31T23:59:59-10:00",
            "2030-1-1T0:0:0Z",
            "\uff12\uff10\uff13\uff10-01-31T12:00:00Z",
        ),
    ],
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be a time as in RFC 3339"):
        parse_time(text)


def test_the_filters_of_deliveries_reach_the_ledger() -> None:
    request = list_deliveries_request(
        OWN,
        {
            "state": "exhausted",
            "subscription": "sub_1",
            "event": "evt_1",
            "type": "order.created",
            "after": "2030-01-01T00:00:00Z",
            "before": "2030-01-02T00:00:00Z",
            "limit": "7",
            "cursor": "c",
        },
    )
    assert request.consumer_id == OWN.consumer_id
    assert request.state == delivery_pb2.DELIVERY_STATE_EXHAUSTED
    assert (request.subscription_id, request.event_id, request.event_type) == ("sub_1", "evt_1", "order.created")
    assert request.end_time.seconds - request.start_time.seconds == 86400
    assert (request.page_size, request.page_token) == (7, "c")


def test_a_filter_that_is_not_given_is_not_set() -> None:
    request = list_events_request(EVERYONE, {})
    assert not request.HasField("start_time")
    assert not request.HasField("end_time")
    assert request.page_size == 0


def test_every_wrong_parameter_is_named() -> None:
    with pytest.raises(Failure) as caught:
        list_deliveries_request(OWN, {"state": "lost", "after": "x", "before": "y", "limit": "z"})
    assert [error.field for error in caught.value.fields] == ["?state", "?after", "?before", "?limit"]


@pytest.mark.parametrize("limit", ["0", "-1", "201", "ten", "1.0", "", " 1", "+1", "\uff11", "9" * 5000])
def test_a_limit_is_a_whole_number_from_1_to_200(limit: str) -> None:
    with pytest.raises(Failure) as caught:
        list_events_request(EVERYONE, {"limit": limit})
    assert [error.field for error in caught.value.fields] == ["?limit"]
