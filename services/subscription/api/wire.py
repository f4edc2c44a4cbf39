"""Wire: the contract's messages from and to the registry's values.

gRPC ─▶ server → [wire] → model

Law: pure; nothing is judged here. What no value can hold (an unknown role or protocol) becomes None for validation to name.
"""

import hashlib
from typing import Protocol as Shape

from google.protobuf.timestamp_pb2 import Timestamp
from hooktide.subscription.v1 import access_pb2, catalogue_pb2, subscription_pb2

from services.subscription.api.wire_settings import (
    config_draft,
    config_message,
    credential_draft,
    credential_message,
    optional_timestamp,
    secret_credential_message,
    settings_draft,
    settings_message,
    signing_keys,
    signing_secrets,
    timestamp,
    verification_message,
)
from services.subscription.model import (
    Consumer,
    Deleted,
    EventType,
    Handshake,
    Key,
    Protocol,
    Put,
    Role,
    State,
    Subscription,
    WatchItem,
)
from services.subscription.rules import consent
from services.subscription.rules.validation import KeyDraft, SubscriptionDraft
from services.subscription.store.idempotency import Once

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
        config=config_draft(message.config),
        settings=settings_draft(message.protocol_settings),
        credential=credential_draft(message.sink_credential),
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
        config=config_message(subscription.config),
        protocol_settings=settings_message(subscription.settings),
        sink_credential=None if subscription.credential is None else credential_message(subscription.credential),
        state=_STATE_NUMBERS[subscription.state],
        state_reason=subscription.state_reason,
        create_time=timestamp(subscription.create_ms),
        update_time=timestamp(subscription.update_ms),
        revision=subscription.revision,
        sink_revision=subscription.sink_revision,
        verification=None if subscription.verification is None else verification_message(subscription.verification),
        etag=subscription.etag,
    )


def put_message(put: Put, handshake: Handshake) -> subscription_pb2.WatchedSubscription:
    """Return a subscription with all that is needed to send to its sink, where the operator wants such handshakes."""
    kept, message = put.subscription.credential, subscription_message(put.subscription)
    return subscription_pb2.WatchedSubscription(
        subscription=message,
        secrets=signing_secrets(put.secrets),
        keys=signing_keys(put.secrets, private=True),
        sink_credential=None if kept is None else secret_credential_message(kept, put.credential_secret),
        consent_wanted=consent.is_wanted(put.subscription, handshake),
    )


def watch_message(item: WatchItem, handshake: Handshake) -> subscription_pb2.WatchSubscriptionsResponse:
    """Return one message of a watch, where the operator wants such handshakes."""
    match item:
        case Put():
            return subscription_pb2.WatchSubscriptionsResponse(put=put_message(item, handshake))
        case Deleted(subscription_id, revision):
            deleted = subscription_pb2.DeletedSubscription(id=subscription_id, revision=revision)
            return subscription_pb2.WatchSubscriptionsResponse(deleted=deleted)
        case _:
            revision, change_id = item.point
            checkpoint = subscription_pb2.Checkpoint(revision=revision, registry_id=item.registry_id, change_id=change_id)
            return subscription_pb2.WatchSubscriptionsResponse(checkpoint=checkpoint)


def revision_message(revision: int, lease_s: float) -> subscription_pb2.AskRevisionResponse:
    """Return the answer to a question for the revision, with a read lease of so many seconds; 0: with none."""
    answer = subscription_pb2.AskRevisionResponse(revision=revision)
    if lease_s:
        answer.lease.FromMilliseconds(int(lease_s * 1000))
    return answer


def event_type_message(event_type: EventType) -> catalogue_pb2.EventType:
    """Return an event type as the contract has it."""
    return catalogue_pb2.EventType(
        name=event_type.name,
        description=event_type.description,
        audience_required=event_type.audience_required,
        create_time=timestamp(event_type.create_ms),
        update_time=timestamp(event_type.update_ms),
        etag=event_type.etag,
    )


def consumer_message(consumer: Consumer) -> access_pb2.Consumer:
    """Return a consumer as the contract has it."""
    return access_pb2.Consumer(id=consumer.id, name=consumer.name, create_time=timestamp(consumer.create_ms))


def key_message(key: Key) -> access_pb2.Key:
    """Return a key, without its clear text, as the contract has it."""
    return access_pb2.Key(
        id=key.id,
        role=_ROLE_NUMBERS[key.role],
        consumer_id=key.consumer_id or "",
        name=key.name,
        hint=key.hint,
        expire_time=optional_timestamp(key.expire_ms),
        create_time=timestamp(key.create_ms),
    )


def _timestamp_ms(time: Timestamp) -> int:
    return time.seconds * 1000 + time.nanos // 1_000_000
