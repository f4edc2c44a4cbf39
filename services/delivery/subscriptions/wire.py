"""Wire: reads the registry's messages about subscriptions.

registry ─Watch─▶ registry_client → [wire] → router, lane, request_builder

Law: pure, but for a log line about secrets that cannot be read.
"""

from hooktide.subscription.v1 import subscription_pb2 as pb

from services.delivery.model import ContentMode, Secret, SubscriptionStatus
from services.delivery.request.credentials import AccessToken, Credential, Header, MutualTls, OAuth2, Plain
from services.delivery.request.request_settings import Disabled, OwnRetryPolicy, RequestSettings, Subscription, rate_limit
from services.delivery.request.signing import SigningKey, private_key, secret_bytes
from services.runtime.logs import logger

_CONTENT_MODES = {pb.CONTENT_MODE_BINARY: ContentMode.BINARY, pb.CONTENT_MODE_DATA_ONLY: ContentMode.DATA_ONLY}
_STATUS = {
    pb.SUBSCRIPTION_STATE_ACTIVE: SubscriptionStatus.ACTIVE,
    pb.SUBSCRIPTION_STATE_PAUSED: SubscriptionStatus.PAUSED,
    pb.SUBSCRIPTION_STATE_DISABLED: SubscriptionStatus.OFF,
    pb.SUBSCRIPTION_STATE_UNVERIFIED: SubscriptionStatus.OFF,
}


def subscription_of(watched: pb.WatchedSubscription) -> Subscription:
    """Return the subscription in a watch's message; if it is active and its secrets cannot be read, pause it and log an error."""
    message = watched.subscription
    status = _STATUS.get(message.state, SubscriptionStatus.OFF)
    try:
        settings = request_settings_of(watched)
    except ValueError as error:
        settings = request_settings_of(_without_secrets(watched))
        if status is SubscriptionStatus.ACTIVE:
            status = SubscriptionStatus.PAUSED
            logger().error(
                "subscription.unreadable",
                subscription=message.id,
                reason=str(error),
                effect="its deliveries wait until the subscription changes",
            )
    return Subscription(
        id=message.id,
        consumer_id=message.consumer_id,
        sink=message.sink,
        types=tuple(message.types),
        source=message.source,
        status=status,
        revision=message.revision,
        settings=settings,
        start_ms=_start_ms(message.config.start),
        disabled=(
            Disabled(message.update_time.ToMilliseconds(), message.state_reason)
            if message.state == pb.SUBSCRIPTION_STATE_DISABLED
            else None
        ),
    )


def request_settings_of(watched: pb.WatchedSubscription) -> RequestSettings:
    """Return the request settings in a watch's message; raises `ValueError` if a secret or key in it is invalid."""
    subscription, protocol, config = watched.subscription, watched.subscription.protocol_settings, watched.subscription.config
    verification = subscription.verification
    schemes = set(protocol.signatures) or {pb.SIGNATURE_SCHEME_V1}
    granted = verification.rate_per_minute if verification.HasField("rate_per_minute") else None
    configured = config.rate_per_second if config.HasField("rate_per_second") else None
    return RequestSettings(
        sink_revision=subscription.sink_revision,
        content_mode=_CONTENT_MODES.get(protocol.content_mode, ContentMode.STRUCTURED),
        secrets=tuple(_secret(each) for each in watched.secrets) if pb.SIGNATURE_SCHEME_V1 in schemes else (),
        keys=tuple(_key(each) for each in watched.keys) if pb.SIGNATURE_SCHEME_V1A in schemes else (),
        message_signature=protocol.http_message_signature,
        headers=dict(protocol.headers),
        credential=_credential(watched.sink_credential, protocol.ca_certificates),
        ca_certificates=protocol.ca_certificates,
        timeout_s=protocol.timeout.ToMilliseconds() / 1000 if protocol.HasField("timeout") else None,
        rate_per_second=rate_limit(granted, configured),
        in_flight_max=config.in_flight_max if config.HasField("in_flight_max") else None,
        retry=_retry(config.retry),
        is_ordered=config.ordering == pb.ORDERING_KEY,
    )


def _retry(message: pb.RetryPolicy) -> OwnRetryPolicy:
    return OwnRetryPolicy(
        delays_s=tuple(delay.ToMilliseconds() / 1000 for delay in message.delays.delays) if message.HasField("delays") else None,
        attempts_max=message.attempts_max if message.HasField("attempts_max") else None,
        final_statuses=frozenset(message.final_statuses),
    )


def _start_ms(message: pb.Start) -> int | None:
    if message.HasField("time"):
        return message.time.ToMilliseconds()
    return 0 if message.point == pb.START_POINT_BEGINNING else None


def _credential(message: pb.SinkCredential, ca_certificates: str) -> Credential | None:
    """Return a message's credential, or None. `ca_certificates` verify the sink, and the authorization server too."""
    match message.WhichOneof("kind"):
        case "plain":
            return Plain(message.plain.identifier, message.plain.secret)
        case "access_token":
            return AccessToken(message.access_token.token, message.access_token.token_type)
        case "header":
            return Header(message.header.name, message.header.value)
        case "oauth2":
            oauth2 = message.oauth2
            return OAuth2(oauth2.token_url, oauth2.client_id, oauth2.client_secret, oauth2.scope, ca_certificates)
        case "mtls":
            return MutualTls(message.mtls.certificate, message.mtls.private_key)
        case None:
            return None


def _secret(message: pb.SigningSecret) -> Secret:
    expires_ms = message.expire_time.ToMilliseconds() if message.HasField("expire_time") else None
    key = secret_bytes(message.secret)
    if not key:
        raise ValueError("a signing secret is empty")
    return Secret(key, expires_ms)


def _key(message: pb.SigningKey) -> SigningKey:
    expires_ms = message.expire_time.ToMilliseconds() if message.HasField("expire_time") else None
    return SigningKey(private_key(message.private_key), message.key_id, expires_ms)


def _without_secrets(watched: pb.WatchedSubscription) -> pb.WatchedSubscription:
    rest = pb.WatchedSubscription()
    rest.CopyFrom(watched)
    rest.ClearField("secrets")
    rest.ClearField("keys")
    return rest
