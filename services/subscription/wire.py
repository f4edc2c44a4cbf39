"""Wire: the contract's messages from and to the registry's values.

gRPC ─▶ server → [wire] → model

Law: pure; nothing is judged here. What no value can hold (an unknown role or protocol) becomes None for validation to name.
"""

import hashlib
from typing import Protocol as Shape

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from hooktide.subscription.v1 import access_pb2, catalogue_pb2, subscription_pb2

from services.subscription.model import (
    Consumer,
    Deleted,
    EventType,
    Key,
    Protocol,
    Put,
    Role,
    SigningSecret,
    State,
    Subscription,
    WatchItem,
)
from services.subscription.store_answers import Once
from services.subscription.validation import KeyDraft, SubscriptionDraft

_PROTOCOLS = {
    subscription_pb2.PROTOCOL_UNSPECIFIED: Protocol.HTTP,
    subscription_pb2.PROTOCOL_HTTP: Protocol.HTTP,
}
_PROTOCOL_NUMBERS = {Protocol.HTTP: subscription_pb2.PROTOCOL_HTTP}
_STATE_NUMBERS = {
    State.ACTIVE: subscription_pb2.SUBSCRIPTION_STATE_ACTIVE,
    State.PAUSED: subscription_pb2.SUBSCRIPTION_STATE_PAUSED,
    State.DISABLED: subscription_pb2.SUBSCRIPTION_STATE_DISABLED,
    State.UNVERIFIED: subscription_pb2.SUBSCRIPTION_STATE_UNVERIFIED,
}
_ROLE_NUMBERS = {
    Role.ADMIN: access_pb2.ROLE_ADMIN,
    Role.EMITTER: access_pb2.ROLE_EMITTER,
    Role.CONSUMER: access_pb2.ROLE_CONSUMER,
}
_ROLES = {number: role for role, number in _ROLE_NUMBERS.items()}


class RepeatableRequest(Shape):
    """A request that a request id makes idempotent."""

    @property
    def request_id(self) -> str:
        """The id; "" for none."""
        ...

    def SerializeToString(self, *, deterministic: bool = ...) -> bytes:  # noqa: N802 - named by protobuf
        """Return the message's bytes, the same for the same content where asked to be deterministic."""
        ...


def once_from(request: RepeatableRequest, scope: str, method: str) -> Once:
    """Return what tells a request sent twice from another one. The digest covers the request id, which is the same then."""
    digest = hashlib.sha256(request.SerializeToString(deterministic=True)).digest()
    return Once(scope, method, request.request_id, digest)


def subscription_draft(message: subscription_pb2.Subscription) -> SubscriptionDraft:
    """Return what a caller wants of a subscription."""
    return SubscriptionDraft(
        sink=message.sink,
        protocol=_PROTOCOLS.get(message.protocol),
        types=tuple(message.types),
        source=message.source,
        description=message.config.description,
    )


def key_draft(message: access_pb2.Key) -> KeyDraft:
    """Return what a caller wants of a key."""
    expire_ms = _timestamp_ms(message.expire_time) if message.HasField("expire_time") else None
    return KeyDraft(role=_ROLES.get(message.role), consumer_id=message.consumer_id, name=message.name, expire_ms=expire_ms)


def subscription_message(subscription: Subscription) -> subscription_pb2.Subscription:
    """Return a subscription as the contract has it."""
    return subscription_pb2.Subscription(
        id=subscription.id,
        consumer_id=subscription.consumer_id,
        sink=subscription.sink,
        protocol=_PROTOCOL_NUMBERS[subscription.protocol],
        types=subscription.types,
        source=subscription.source,
        config=subscription_pb2.SubscriptionConfig(description=subscription.description),
        state=_STATE_NUMBERS[subscription.state],
        state_reason=subscription.state_reason,
        create_time=_timestamp(subscription.create_ms),
        update_time=_timestamp(subscription.update_ms),
        revision=subscription.revision,
        etag=subscription.etag,
    )


def secret_message(secret: SigningSecret) -> subscription_pb2.SigningSecret:
    """Return a signing secret, in clear, as the contract has it."""
    return subscription_pb2.SigningSecret(
        secret=secret.secret, create_time=_timestamp(secret.create_ms), expire_time=_optional_timestamp(secret.expire_ms)
    )


def watch_message(item: WatchItem) -> subscription_pb2.WatchSubscriptionsResponse:
    """Return one message of a watch."""
    match item:
        case Put(subscription, secrets):
            watched = subscription_pb2.WatchedSubscription(
                subscription=subscription_message(subscription), secrets=[secret_message(secret) for secret in secrets]
            )
            return subscription_pb2.WatchSubscriptionsResponse(put=watched)
        case Deleted(subscription_id, revision):
            deleted = subscription_pb2.DeletedSubscription(id=subscription_id, revision=revision)
            return subscription_pb2.WatchSubscriptionsResponse(deleted=deleted)
        case _:
            checkpoint = subscription_pb2.Checkpoint(revision=item.revision, registry_id=item.registry_id)
            return subscription_pb2.WatchSubscriptionsResponse(checkpoint=checkpoint)


def event_type_message(event_type: EventType) -> catalogue_pb2.EventType:
    """Return an event type as the contract has it."""
    return catalogue_pb2.EventType(
        name=event_type.name,
        description=event_type.description,
        audience_required=event_type.audience_required,
        create_time=_timestamp(event_type.create_ms),
        update_time=_timestamp(event_type.update_ms),
        etag=event_type.etag,
    )


def consumer_message(consumer: Consumer) -> access_pb2.Consumer:
    """Return a consumer as the contract has it."""
    return access_pb2.Consumer(id=consumer.id, name=consumer.name, create_time=_timestamp(consumer.create_ms))


def key_message(key: Key) -> access_pb2.Key:
    """Return a key, without its clear text, as the contract has it."""
    return access_pb2.Key(
        id=key.id,
        role=_ROLE_NUMBERS[key.role],
        consumer_id=key.consumer_id or "",
        name=key.name,
        hint=key.hint,
        expire_time=_optional_timestamp(key.expire_ms),
        create_time=_timestamp(key.create_ms),
    )


def duration_ms(duration: Duration) -> int:
    """Return a duration in whole milliseconds, rounded down."""
    return duration.seconds * 1000 + duration.nanos // 1_000_000


def _timestamp_ms(timestamp: Timestamp) -> int:
    return timestamp.seconds * 1000 + timestamp.nanos // 1_000_000


def _timestamp(time_ms: int) -> Timestamp:
    seconds, rest_ms = divmod(time_ms, 1000)
    return Timestamp(seconds=seconds, nanos=rest_ms * 1_000_000)


def _optional_timestamp(time_ms: int | None) -> Timestamp | None:
    return None if time_ms is None else _timestamp(time_ms)
