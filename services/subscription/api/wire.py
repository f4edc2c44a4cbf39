"""Wire: converts the contract's messages from and to the registry's values.

gRPC ─▶ subscription_server → [wire] → model

Law: pure; this file validates nothing. An unknown number (of a role or protocol) becomes None, and validation reports it.
"""

import hashlib
from typing import Protocol as Shape

from hooktide.subscription.v1 import access_pb2, catalogue_pb2, subscription_pb2, system_pb2

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
    timestamp_ms,
    verification_message,
)
from services.subscription.model import (
    Consumer,
    ConsumerPause,
    DeletedSubscription,
    EventType,
    IdempotentCall,
    Key,
    Pause,
    Protocol,
    PutSubscription,
    Role,
    State,
    Subscription,
    VerificationPolicy,
    WatchItem,
)
from services.subscription.rules import consent
from services.subscription.rules.pause import shown_reason
from services.subscription.rules.validation import KeyDraft, SubscriptionDraft

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
        """The request id (idempotency key); "": none."""
        ...

    def SerializeToString(self, *, deterministic: bool = ...) -> bytes:  # noqa: N802 - named by protobuf
        """Return the message's bytes; if `deterministic`, the same content gives the same bytes."""
        ...


def idempotent_call(request: RepeatableRequest, caller: str, method: str) -> IdempotentCall:
    """Return the identity of an idempotent call. The digest covers the whole request, even the request id, which a repeat shares."""
    digest = hashlib.sha256(request.SerializeToString(deterministic=True)).digest()
    return IdempotentCall(caller, method, request.request_id, digest)


def subscription_draft(message: subscription_pb2.Subscription) -> SubscriptionDraft:
    """Return the subscription that a caller wants."""
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
    """Return the API key that a caller wants."""
    expire_ms = timestamp_ms(message.expire_time) if message.HasField("expire_time") else None
    return KeyDraft(role=_ROLES.get(message.role), consumer_id=message.consumer_id, name=message.name, expire_ms=expire_ms)


def subscription_message(subscription: Subscription) -> subscription_pb2.Subscription:
    """Return a subscription as the contract's message."""
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
        state_reason=shown_reason(subscription),
        create_time=timestamp(subscription.create_ms),
        update_time=timestamp(subscription.update_ms),
        revision=subscription.revision,
        sink_revision=subscription.sink_revision,
        verification=None if subscription.verification is None else verification_message(subscription.verification),
        etag=subscription.etag,
    )


def watched_message(put: PutSubscription, policy: VerificationPolicy) -> subscription_pb2.WatchedSubscription:
    """Return a subscription with all that delivery needs to send to its sink, and whether delivery shall ask the sink for its consent.

    `policy` is the operator's policy for sink verification.
    """
    kept, message = put.subscription.credential, subscription_message(put.subscription)
    return subscription_pb2.WatchedSubscription(
        subscription=message,
        secrets=signing_secrets(put.secrets),
        keys=signing_keys(put.secrets, private=True),
        sink_credential=None if kept is None else secret_credential_message(kept, put.credential_secret),
        consent_wanted=consent.is_wanted(put.subscription, policy),
    )


def watch_message(item: WatchItem, policy: VerificationPolicy) -> subscription_pb2.WatchSubscriptionsResponse:
    """Return one message of a watch; `policy` is the operator's policy for sink verification."""
    match item:
        case PutSubscription():
            return subscription_pb2.WatchSubscriptionsResponse(put=watched_message(item, policy))
        case DeletedSubscription(subscription_id, revision):
            deleted = subscription_pb2.DeletedSubscription(id=subscription_id, revision=revision)
            return subscription_pb2.WatchSubscriptionsResponse(deleted=deleted)
        case ConsumerPause(consumer_id, paused):
            pause = subscription_pb2.ConsumerPause(consumer_id=consumer_id, paused=paused)
            return subscription_pb2.WatchSubscriptionsResponse(consumer_pause=pause)
        case _:
            revision, change_id = item.point
            checkpoint = subscription_pb2.Checkpoint(
                revision=revision, registry_id=item.registry_id, change_id=change_id, system_paused=item.system_paused
            )
            return subscription_pb2.WatchSubscriptionsResponse(checkpoint=checkpoint)


def revision_message(revision: int, lease_s: float) -> subscription_pb2.AskRevisionResponse:
    """Return the answer to a question for the latest revision, with a read lease of `lease_s` seconds; 0: without a lease."""
    answer = subscription_pb2.AskRevisionResponse(revision=revision)
    if lease_s:
        answer.lease.FromMilliseconds(int(lease_s * 1000))
    return answer


def event_type_message(event_type: EventType) -> catalogue_pb2.EventType:
    """Return an event type as the contract's message."""
    return catalogue_pb2.EventType(
        name=event_type.name,
        description=event_type.description,
        audience_required=event_type.audience_required,
        create_time=timestamp(event_type.create_ms),
        update_time=timestamp(event_type.update_ms),
        etag=event_type.etag,
    )


def consumer_message(consumer: Consumer) -> access_pb2.Consumer:
    """Return a consumer as the contract's message."""
    return access_pb2.Consumer(
        id=consumer.id, name=consumer.name, create_time=timestamp(consumer.create_ms), pause=pause_message(consumer.pause)
    )


def pause_message(pause: Pause | None) -> system_pb2.Pause | None:
    """Return a pause of a consumer or of the system as the contract's message; None for no pause."""
    if pause is None:
        return None
    return system_pb2.Pause(time=timestamp(pause.time_ms), key_id=pause.by, kept_until_time=timestamp(pause.kept_until_ms))


def key_message(key: Key) -> access_pb2.Key:
    """Return an API key, without its clear text, as the contract's message."""
    return access_pb2.Key(
        id=key.id,
        role=_ROLE_NUMBERS[key.role],
        consumer_id=key.consumer_id or "",
        name=key.name,
        hint=key.hint,
        expire_time=optional_timestamp(key.expire_ms),
        create_time=timestamp(key.create_ms),
    )
