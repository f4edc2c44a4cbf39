"""Subscriptions in JSON (the shape of the CloudEvents Subscriptions API) and in the contract."""

from dataclasses import dataclass

from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from hooktide.subscription.v1 import subscription_pb2 as pb

from gateway.authenticate import Caller, Role
from gateway.translate.fields import Fields
from gateway.translate.values import time_json, word_of

_READ_ONLY = ("id", "state", "state_reason", "created_at", "updated_at")
_WRITABLE = ("sink", "types", "source", "config")
_PROTOCOLS = {"HTTP": pb.PROTOCOL_HTTP}
# As far as a protobuf Duration reaches; what is sensible is for the registry to say.
_SECONDS_MAX = 315_576_000_000


@dataclass(frozen=True, slots=True)
class Patch:
    """What a merge patch changes; an empty mask changes nothing."""

    subscription: pb.Subscription
    paths: tuple[str, ...]


def create_request(caller: Caller, body: dict[str, object], request_id: str) -> pb.CreateSubscriptionRequest:
    """Return the call that a body asks for. An administrator says whose the subscription is, a consumer's is its own."""
    fields = Fields(body)
    consumer_id = fields.text("consumer_id") if caller.role is Role.ADMIN else caller.consumer_id
    fields.ignore("consumer_id", *_READ_ONLY)
    request = pb.CreateSubscriptionRequest(
        consumer_id=consumer_id, subscription=_subscription(fields), secret=fields.text("secret"), request_id=request_id
    )
    fields.done()
    return request


def replace_request(acts_for: str, subscription_id: str, body: dict[str, object], etag: str) -> pb.UpdateSubscriptionRequest:
    """Return the call that puts a whole subscription in the place of another: what the body leaves out has its default again."""
    fields = Fields(body)
    fields.ignore("consumer_id", *_READ_ONLY)
    subscription = _subscription(fields)
    fields.done()
    return update_request(acts_for, subscription_id, Patch(subscription, _WRITABLE), etag)


def parse_patch(body: dict[str, object]) -> Patch:
    """Return what a JSON merge patch (RFC 7396) changes: the members that are there, null being the default."""
    fields = Fields(body)
    fields.ignore("consumer_id", *_READ_ONLY)
    subscription = _subscription(fields)
    paths = [name for name in _WRITABLE if fields.has(name)]
    if fields.has_value("config"):
        # An object is merged with the one that stands there, so it names its own members.
        config = body["config"]
        at = paths.index("config")
        paths[at : at + 1] = ["config.description"] if isinstance(config, dict) and "description" in config else []
    fields.done()
    return Patch(subscription, tuple(paths))


def update_request(acts_for: str, subscription_id: str, patch: Patch, etag: str) -> pb.UpdateSubscriptionRequest:
    """Return the call that makes a change."""
    request = pb.UpdateSubscriptionRequest(
        consumer_id=acts_for, subscription=patch.subscription, update_mask=FieldMask(paths=patch.paths), etag=etag
    )
    request.subscription.id = subscription_id
    return request


def rotate_request(acts_for: str, subscription_id: str, body: dict[str, object], request_id: str) -> pb.RotateSecretRequest:
    """Return the call that rotates a secret."""
    fields = Fields(body)
    overlap_s = fields.whole("overlap_seconds", _SECONDS_MAX)
    request = pb.RotateSecretRequest(
        consumer_id=acts_for,
        subscription_id=subscription_id,
        secret=fields.text("secret"),
        overlap=None if overlap_s is None else Duration(seconds=overlap_s),
        request_id=request_id,
    )
    fields.done()
    return request


def subscription_json(subscription: pb.Subscription) -> dict[str, object]:
    """Return a subscription as its owner sees it."""
    return {
        "id": subscription.id,
        "consumer_id": subscription.consumer_id,
        "sink": subscription.sink,
        "protocol": word_of(pb.Protocol.Name(subscription.protocol), "PROTOCOL_").upper(),
        "types": list(subscription.types),
        "source": subscription.source or None,
        "config": {"description": subscription.config.description or None},
        "state": word_of(pb.SubscriptionState.Name(subscription.state), "SUBSCRIPTION_STATE_"),
        "state_reason": subscription.state_reason or None,
        "created_at": time_json(subscription.create_time),
        "updated_at": time_json(subscription.update_time),
    }


def secret_json(secret: pb.SigningSecret) -> dict[str, object]:
    """Return a signing secret with its times; `expires_at` is null while no end is planned."""
    return {
        "secret": secret.secret,
        "created_at": time_json(secret.create_time),
        "expires_at": time_json(secret.expire_time) if secret.HasField("expire_time") else None,
    }


def _subscription(fields: Fields) -> pb.Subscription:
    return pb.Subscription(
        sink=fields.text("sink"),
        protocol=fields.word("protocol", _PROTOCOLS, pb.PROTOCOL_HTTP),
        types=fields.texts("types"),
        source=fields.text("source"),
        config=pb.SubscriptionConfig(description=fields.object("config").text("description")),
    )
