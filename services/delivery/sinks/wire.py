"""Wire: the report of a verification for the registry, and a test event as the log stores events.

sink_verification → [wire] → verification_client; test_event → [wire] → request

Law: pure.
"""

from typing import assert_never

from hooktide.event.v1 import event_pb2
from hooktide.subscription.v1 import subscription_pb2 as pb

from services.delivery.sinks.verification_protocol import Granted, Pending, Refused, Unanswered, Verification

_DETAIL_CHARS_MAX = 500


def verification_message(verification: Verification) -> pb.Verification:
    """Return the message for the result of a verification; its detail is cut to 500 characters."""
    match verification:
        case Granted(rate_per_minute):
            return pb.Verification(state=pb.VERIFICATION_STATE_GRANTED, rate_per_minute=rate_per_minute)
        case Pending(why):
            return pb.Verification(state=pb.VERIFICATION_STATE_PENDING, detail=why[:_DETAIL_CHARS_MAX])
        case Refused(why):
            return pb.Verification(state=pb.VERIFICATION_STATE_REFUSED, detail=why[:_DETAIL_CHARS_MAX])
        case Unanswered(why):
            return pb.Verification(state=pb.VERIFICATION_STATE_FAILED, detail=why[:_DETAIL_CHARS_MAX])
        case other:
            assert_never(other)


def stored_event(event_id: str, source: str, event_type: str, json_text: str, time_ms: int) -> bytes:
    """Return the stored form of an event with JSON data; `time_ms` is its `time`, in ms since 1970."""
    event = event_pb2.CloudEvent(id=event_id, source=source, spec_version="1.0", type=event_type, text_data=json_text)
    event.attributes["datacontenttype"].ce_string = "application/json"
    event.attributes["time"].ce_timestamp.FromMilliseconds(time_ms)
    return event.SerializeToString()
