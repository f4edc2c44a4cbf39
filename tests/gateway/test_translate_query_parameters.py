import pytest
from hooktide.delivery.v1 import delivery_pb2

from gateway.translate.deliveries import list_deliveries_request
from gateway.translate.events import list_events_request
from services.runtime.consumer_scope import EVERYONE, OwnConsumer
from services.runtime.errors import Failure

OWN = OwnConsumer("con_" + "1" * 32)


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
