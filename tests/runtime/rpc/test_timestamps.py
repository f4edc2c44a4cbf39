import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hooktide.ingest.v1.event_log_pb2 import ListEventsRequest

from services.runtime.errors import Failure, Reason
from services.runtime.rpc.timestamps import optional_ms


def test_a_time_is_read_in_milliseconds_rounded_down() -> None:
    assert optional_ms(ListEventsRequest(start_time=Timestamp(seconds=1_900_000_000, nanos=5_999_999)), "start_time") == 1_900_000_000_005
    assert optional_ms(ListEventsRequest(start_time=Timestamp()), "start_time") == 0


def test_a_time_that_is_left_out_is_none() -> None:
    assert optional_ms(ListEventsRequest(), "end_time") is None


@pytest.mark.parametrize("seconds", [-62_135_596_801, 253_402_300_800, 2**63 - 1])
def test_a_time_outside_of_the_years_1_to_9999_is_refused_by_its_field(seconds: int) -> None:
    with pytest.raises(Failure) as caught:
        optional_ms(ListEventsRequest(end_time=Timestamp(seconds=seconds)), "end_time")
    assert caught.value.reason is Reason.INVALID_ARGUMENT
    assert [error.field for error in caught.value.fields] == ["end_time"]
