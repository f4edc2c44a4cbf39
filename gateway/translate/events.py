"""Events: translates queries for events to the contract, and accepted events to JSON."""

from collections.abc import Mapping

from google.protobuf.timestamp_pb2 import Timestamp
from hooktide.event.v1 import event_pb2
from hooktide.ingest.v1 import event_log_pb2 as pb

from gateway.translate.cloudevent_json import event_json
from gateway.translate.query_parameters import QueryParameters
from gateway.translate.timestamps import time_json
from services.runtime.consumer_scope import Scope

EVENT_FILTERS = frozenset({"limit", "cursor", "type", "source", "after", "before"})


def list_events_request(scope: Scope, parameters: Mapping[str, str]) -> pb.ListEventsRequest:
    """Return the call that a query asks for."""
    query = QueryParameters(parameters)
    request = pb.ListEventsRequest(
        consumer_id=scope.text,
        type=query.text("type"),
        source=query.text("source"),
        start_time=query.time("after"),
        end_time=query.time("before"),
        page_size=query.limit(),
        page_token=query.text("cursor"),
    )
    query.done()
    return request


def record_json(record: pb.LogRecord) -> dict[str, object]:
    """Return an accepted event with its partition and position in the log."""
    accepted = Timestamp()
    accepted.FromMilliseconds(record.accepted_unix_ms)
    return {
        "id": record.event_id,
        "partition": record.partition,
        "position": record.position,
        "accepted_at": time_json(accepted),
        "event": event_json(event_pb2.CloudEvent.FromString(record.event)),
    }
