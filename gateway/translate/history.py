"""History: translates queries for events and deliveries to the contract, and their answers to JSON."""

from collections.abc import Mapping

from google.protobuf.timestamp_pb2 import Timestamp
from hooktide.delivery.v1 import delivery_pb2 as delivery
from hooktide.event.v1 import event_pb2
from hooktide.ingest.v1 import event_log_pb2 as log

from gateway.translate.event import event_json
from gateway.translate.values import Query, time_json, word_of
from services.runtime.consumer_scope import Scope

EVENT_FILTERS = frozenset({"limit", "cursor", "type", "source", "after", "before"})
DELIVERY_FILTERS = frozenset({"limit", "cursor", "state", "subscription", "event", "type", "after", "before"})
_STATES = {
    word_of(name, "DELIVERY_STATE_"): delivery.DeliveryState.Value(name)
    for name in delivery.DeliveryState.keys()  # noqa: SIM118 - an enumeration of protobuf, not a dictionary
    if name != "DELIVERY_STATE_UNSPECIFIED"
}


def list_events_request(scope: Scope, parameters: Mapping[str, str]) -> log.ListEventsRequest:
    """Return the call that a query asks for."""
    query = Query(parameters)
    request = log.ListEventsRequest(
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


def list_deliveries_request(scope: Scope, parameters: Mapping[str, str]) -> delivery.ListDeliveriesRequest:
    """Return the call that a query asks for."""
    query = Query(parameters)
    request = delivery.ListDeliveriesRequest(
        consumer_id=scope.text,
        state=query.word("state", _STATES, delivery.DELIVERY_STATE_UNSPECIFIED),
        subscription_id=query.text("subscription"),
        event_id=query.text("event"),
        event_type=query.text("type"),
        start_time=query.time("after"),
        end_time=query.time("before"),
        page_size=query.limit(),
        page_token=query.text("cursor"),
    )
    query.done()
    return request


def record_json(record: log.LogRecord) -> dict[str, object]:
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


def delivery_json(item: delivery.Delivery) -> dict[str, object]:
    """Return a delivery without its attempts, as in lists."""
    return {
        "id": item.id,
        "event_id": item.event_id,
        "subscription_id": item.subscription_id,
        "consumer_id": item.consumer_id,
        "event_type": item.event_type,
        "state": word_of(delivery.DeliveryState.Name(item.state), "DELIVERY_STATE_"),
        "attempt_count": item.attempt_count,
        "last_status": item.last_status or None,
        "partition": item.partition,
        "position": item.position,
        "accepted_at": time_json(item.event_time),
        "next_attempt_at": time_json(item.next_attempt_time) if item.HasField("next_attempt_time") else None,
        "finished_at": time_json(item.finish_time) if item.HasField("finish_time") else None,
    }


def delivery_with_attempts_json(item: delivery.Delivery) -> dict[str, object]:
    """Return a delivery with its attempts, oldest first."""
    return {**delivery_json(item), "attempts": [attempt_json(attempt) for attempt in item.attempts]}


def attempt_json(attempt: delivery.Attempt) -> dict[str, object]:
    """Return an attempt."""
    return {
        "number": attempt.number,
        "started_at": time_json(attempt.start_time),
        "duration_seconds": attempt.duration.ToNanoseconds() / 1e9,
        "outcome": word_of(delivery.AttemptOutcome.Name(attempt.outcome), "ATTEMPT_OUTCOME_"),
        "status": attempt.status or None,
        "error": attempt.error or None,
        "response_body": attempt.response_body or None,
    }
