"""Deliveries: translates queries for deliveries to the contract, and deliveries and attempts to JSON."""

from collections.abc import Mapping

from hooktide.delivery.v1 import delivery_pb2 as pb

from gateway.translate.enum_words import word_of
from gateway.translate.query_parameters import QueryParameters
from gateway.translate.timestamps import time_json
from services.runtime.consumer_scope import Scope

DELIVERY_FILTERS = frozenset({"limit", "cursor", "state", "subscription", "event", "type", "after", "before"})
_STATES = {
    word_of(name, "DELIVERY_STATE_"): pb.DeliveryState.Value(name)
    for name in pb.DeliveryState.keys()  # noqa: SIM118 - an enumeration of protobuf, not a dictionary
    if name != "DELIVERY_STATE_UNSPECIFIED"
}


def list_deliveries_request(scope: Scope, parameters: Mapping[str, str]) -> pb.ListDeliveriesRequest:
    """Return the call that a query asks for."""
    query = QueryParameters(parameters)
    request = pb.ListDeliveriesRequest(
        consumer_id=scope.text,
        state=query.word("state", _STATES, pb.DELIVERY_STATE_UNSPECIFIED),
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


def delivery_json(delivery: pb.Delivery) -> dict[str, object]:
    """Return a delivery without its attempts, as in lists."""
    return {
        "id": delivery.id,
        "event_id": delivery.event_id,
        "subscription_id": delivery.subscription_id,
        "consumer_id": delivery.consumer_id,
        "event_type": delivery.event_type,
        "state": word_of(pb.DeliveryState.Name(delivery.state), "DELIVERY_STATE_"),
        "attempt_count": delivery.attempt_count,
        "last_status": delivery.last_status or None,
        "partition": delivery.partition,
        "position": delivery.position,
        "accepted_at": time_json(delivery.event_time),
        "next_attempt_at": time_json(delivery.next_attempt_time) if delivery.HasField("next_attempt_time") else None,
        "finished_at": time_json(delivery.finish_time) if delivery.HasField("finish_time") else None,
        "waiting": delivery.waiting,
        "expires_at": time_json(delivery.expire_time) if delivery.HasField("expire_time") else None,
    }


def delivery_page_members(answer: pb.ListDeliveriesResponse) -> dict[str, object]:
    """Return what a page tells besides its items; a member that has nothing to tell is left out."""
    members: dict[str, object] = {}
    if answer.HasField("not_listed"):
        members["not_listed"] = {"subscriptions": answer.not_listed.subscriptions, "about": answer.not_listed.about}
    if answer.HasField("ended"):
        members["ended"] = {"cancelled": answer.ended.cancelled, "exhausted": answer.ended.exhausted}
    if answer.partial:
        members["partial"] = True
    if answer.missing_workers:
        members["missing_workers"] = list(answer.missing_workers)
    return members


def delivery_with_attempts_json(delivery: pb.Delivery) -> dict[str, object]:
    """Return a delivery with its attempts, oldest first."""
    return {**delivery_json(delivery), "attempts": [attempt_json(attempt) for attempt in delivery.attempts]}


def attempt_json(attempt: pb.Attempt) -> dict[str, object]:
    """Return an attempt."""
    return {
        "number": attempt.number,
        "started_at": time_json(attempt.start_time),
        "duration_seconds": attempt.duration.ToNanoseconds() / 1e9,
        "outcome": word_of(pb.AttemptOutcome.Name(attempt.outcome), "ATTEMPT_OUTCOME_"),
        "status": attempt.status or None,
        "error": attempt.error or None,
        "response_body": attempt.response_body or None,
    }
