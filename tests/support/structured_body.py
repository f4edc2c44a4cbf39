"""Structured body: the body of a webhook in structured mode."""

from services.delivery.model import ContentMode
from services.delivery.request.event_encoder import content


def structured(raw: bytes) -> bytes:
    """Return the structured body of a CloudEvent given as protobuf bytes."""
    return content(raw, ContentMode.STRUCTURED).body
