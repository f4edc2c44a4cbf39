"""Subscriptions: translates subscriptions between JSON (the shape of the CloudEvents Subscriptions API) and the contract."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from hooktide.subscription.v1 import subscription_pb2 as pb

from gateway.authentication import Caller, Role
from gateway.translate.body_fields import BodyFields
from gateway.translate.enum_words import word_of
from gateway.translate.sink_credential import credential_json, credential_of, credential_paths
from gateway.translate.subscription_settings import (
    SCHEMES,
    SECONDS_MAX,
    config_json,
    config_of,
    config_paths,
    settings_json,
    settings_of,
    settings_paths,
    verification_json,
)
from gateway.translate.timestamps import time_json
from services.runtime.consumer_scope import Scope

_READ_ONLY = ("id", "state", "state_reason", "verification", "created_at", "updated_at")
# The members that can be changed, with their fields in the contract. A member that is an object also has a function that returns which
# inner members a merge patch changes.
_PLAIN = {"sink": "sink", "types": "types", "source": "source"}
_MERGED: dict[str, tuple[str, Callable[[Mapping[str, object]], list[str]]]] = {
    "config": ("config", config_paths),
    "protocolsettings": ("protocol_settings", settings_paths),
    "sinkcredential": ("sink_credential", credential_paths),
}
_WRITABLE = (*_PLAIN.values(), *(field for field, _ in _MERGED.values()))
_PROTOCOLS = {"HTTP": pb.PROTOCOL_HTTP}


@dataclass(frozen=True, slots=True)
class MergePatch:
    """The fields that a merge patch changes; without paths it changes nothing."""

    subscription: pb.Subscription
    paths: tuple[str, ...]


def create_request(caller: Caller, body: dict[str, object], request_id: str) -> pb.CreateSubscriptionRequest:
    """Return the call that a body asks for. An administrator names the subscription's consumer; a consumer's subscription is its own."""
    fields = BodyFields(body)
    consumer_id = fields.text("consumer_id") if caller.role is Role.ADMIN else caller.consumer_id
    fields.ignore("consumer_id", *_READ_ONLY)
    request = pb.CreateSubscriptionRequest(
        consumer_id=consumer_id, subscription=_subscription(fields), secret=fields.text("secret"), request_id=request_id
    )
    fields.done()
    return request


def replace_request(scope: Scope, subscription_id: str, body: dict[str, object], etag: str) -> pb.UpdateSubscriptionRequest:
    """Return the call that replaces a whole subscription: members that the body leaves out get their defaults again."""
    fields = BodyFields(body)
    fields.ignore("consumer_id", *_READ_ONLY)
    subscription = _subscription(fields)
    fields.done()
    return update_request(scope, subscription_id, MergePatch(subscription, _WRITABLE), etag)


def parse_patch(body: dict[str, object]) -> MergePatch:
    """Return the changes of a JSON merge patch (RFC 7396): the members that it has; null restores a member's default."""
    fields = BodyFields(body)
    fields.ignore("consumer_id", *_READ_ONLY)
    subscription = _subscription(fields)
    paths = [field for name, field in _PLAIN.items() if fields.has(name)]
    for name, (field, inner_paths) in _MERGED.items():
        # An object is merged with the existing one, so only its own members change. Null replaces the existing object.
        inner = body.get(name)
        if isinstance(inner, dict):
            paths += inner_paths(inner)
        elif fields.has(name):
            paths.append(field)
    fields.done()
    return MergePatch(subscription, tuple(paths))


def update_request(scope: Scope, subscription_id: str, patch: MergePatch, etag: str) -> pb.UpdateSubscriptionRequest:
    """Return the call that makes a change."""
    request = pb.UpdateSubscriptionRequest(
        consumer_id=scope.text, subscription=patch.subscription, update_mask=FieldMask(paths=patch.paths), etag=etag
    )
    request.subscription.id = subscription_id
    return request


def rotate_request(scope: Scope, subscription_id: str, body: dict[str, object], request_id: str) -> pb.RotateSecretRequest:
    """Return the call that rotates a secret."""
    fields = BodyFields(body)
    overlap_s = fields.whole("overlap_seconds", SECONDS_MAX)
    request = pb.RotateSecretRequest(
        consumer_id=scope.text,
        subscription_id=subscription_id,
        secret=fields.text("secret"),
        overlap=None if overlap_s is None else Duration(seconds=overlap_s),
        request_id=request_id,
        scheme=fields.word("signature", SCHEMES, pb.SIGNATURE_SCHEME_UNSPECIFIED),
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
        "sinkcredential": credential_json(subscription.sink_credential),
        "protocolsettings": settings_json(subscription.protocol_settings),
        "config": config_json(subscription.config),
        "state": word_of(pb.SubscriptionState.Name(subscription.state), "SUBSCRIPTION_STATE_"),
        "state_reason": subscription.state_reason or None,
        "verification": verification_json(subscription.verification) if subscription.HasField("verification") else None,
        "created_at": time_json(subscription.create_time),
        "updated_at": time_json(subscription.update_time),
    }


def secret_json(secret: pb.SigningSecret) -> dict[str, object]:
    """Return a signing secret with its times; `expires_at` is null while no expiry is planned."""
    return {
        "secret": secret.secret,
        "key_id": secret.key_id,
        "created_at": time_json(secret.create_time),
        "expires_at": time_json(secret.expire_time) if secret.HasField("expire_time") else None,
    }


def key_json(key: pb.SigningKey) -> dict[str, object]:
    """Return the public half of a signing key with its times."""
    return {
        "public_key": key.public_key,
        "key_id": key.key_id,
        "created_at": time_json(key.create_time),
        "expires_at": time_json(key.expire_time) if key.HasField("expire_time") else None,
    }


def rotated_json(answer: pb.RotateSecretResponse) -> dict[str, object]:
    """Return the new secret, or the public half of the new key."""
    return {"public_key": answer.key.public_key} if answer.HasField("key") else {"secret": answer.secret.secret}


def _subscription(fields: BodyFields) -> pb.Subscription:
    return pb.Subscription(
        sink=fields.text("sink"),
        protocol=fields.word("protocol", _PROTOCOLS, pb.PROTOCOL_HTTP),
        types=fields.texts("types"),
        source=fields.text("source"),
        config=config_of(fields.object("config")),
        protocol_settings=settings_of(fields.object("protocolsettings")),
        sink_credential=_credential(fields),
    )


def _credential(fields: BodyFields) -> pb.SinkCredential | None:
    inner = fields.object("sinkcredential")
    return credential_of(inner) if fields.is_object("sinkcredential") else None
