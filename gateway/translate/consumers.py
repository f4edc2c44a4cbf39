"""Consumers: translates consumers between JSON and the contract."""

from hooktide.subscription.v1 import access_pb2 as pb

from gateway.translate.body_fields import BodyFields
from gateway.translate.pauses import pause_json
from gateway.translate.timestamps import time_json


def create_consumer_request(body: dict[str, object], request_id: str) -> pb.CreateConsumerRequest:
    """Return the call that a body asks for."""
    fields = BodyFields(body)
    request = pb.CreateConsumerRequest(consumer=pb.Consumer(name=fields.text("name")), request_id=request_id)
    fields.ignore("id", "created_at", "pause")
    fields.done()
    return request


def consumer_json(consumer: pb.Consumer) -> dict[str, object]:
    """Return a consumer; `pause` is null while it is not paused."""
    return {
        "id": consumer.id,
        "name": consumer.name,
        "created_at": time_json(consumer.create_time),
        "pause": pause_json(consumer.pause) if consumer.HasField("pause") else None,
    }
