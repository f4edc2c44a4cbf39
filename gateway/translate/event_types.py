"""Event types: translates event types from the contract to JSON."""

from hooktide.subscription.v1 import catalogue_pb2 as pb

from gateway.translate.timestamps import time_json


def event_type_json(event_type: pb.EventType) -> dict[str, object]:
    """Return an entry of the catalogue."""
    return {
        "name": event_type.name,
        "description": event_type.description or None,
        "audience_required": event_type.audience_required,
        "created_at": time_json(event_type.create_time),
        "updated_at": time_json(event_type.update_time),
    }
