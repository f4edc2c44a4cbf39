"""Wire form of sinks/: a verification's report, and the stored form of a test event."""

import orjson
import pytest
from hooktide.subscription.v1 import subscription_pb2 as pb

from services.delivery.sinks.verification_protocol import Granted, Pending, Refused, Unanswered, Verification
from services.delivery.sinks.wire import stored_event, verification_message
from tests.support.structured_body import structured

LONG = "x" * 501


@pytest.mark.parametrize(
    ("verification", "message"),
    [
        (Granted(120), pb.Verification(state=pb.VERIFICATION_STATE_GRANTED, rate_per_minute=120)),
        (Granted(None), pb.Verification(state=pb.VERIFICATION_STATE_GRANTED)),
        (Pending(LONG), pb.Verification(state=pb.VERIFICATION_STATE_PENDING, detail=LONG[:500])),
        (Refused(LONG), pb.Verification(state=pb.VERIFICATION_STATE_REFUSED, detail=LONG[:500])),
        (Unanswered(LONG), pb.Verification(state=pb.VERIFICATION_STATE_FAILED, detail=LONG[:500])),
    ],
    ids=lambda value: type(value).__name__,
)
def test_each_result_has_its_message_and_a_short_detail(verification: Verification, message: pb.Verification) -> None:
    assert verification_message(verification) == message
    assert verification_message(verification).HasField("rate_per_minute") == (verification == Granted(120))


def test_a_stored_event_is_encoded_as_any_event_of_the_log() -> None:
    assert orjson.loads(structured(stored_event("evt_1", "/hooktide", "hooktide.test", '{"a":1}', 1_700_000_000_500))) == {
        "specversion": "1.0",
        "id": "evt_1",
        "source": "/hooktide",
        "type": "hooktide.test",
        "datacontenttype": "application/json",
        "time": "2023-11-14T22:13:20.500Z",
        "data": {"a": 1},
    }
