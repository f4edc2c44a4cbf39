"""Wire settings: converts settings, credentials, secrets and verifications from and to the registry's values.

gRPC ─▶ subscription_server → wire → [wire_settings] → model

Law: pure; this file validates nothing. A number that the contract does not know becomes None, and validation reports it.
"""

from collections.abc import Iterable, Mapping

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from hooktide.subscription.v1 import subscription_pb2 as pb

from services.subscription.credential import SECRET, Credential, CredentialKind, SecretCredential, credential_of
from services.subscription.model import (
    Config,
    Consent,
    ContentMode,
    Ordering,
    ProtocolSettings,
    RetryPolicy,
    Scheme,
    SigningSecret,
    Start,
    StartPoint,
    Verification,
)
from services.subscription.rules.settings_validation import ConfigDraft, SettingsDraft
from services.subscription.rules.signing_key import PRIVATE_PREFIX, key_id, public_key

_MODE_NUMBERS = {
    ContentMode.STRUCTURED: pb.CONTENT_MODE_STRUCTURED,
    ContentMode.BINARY: pb.CONTENT_MODE_BINARY,
    ContentMode.DATA_ONLY: pb.CONTENT_MODE_DATA_ONLY,
}
_MODES = {number: mode for mode, number in _MODE_NUMBERS.items()} | {pb.CONTENT_MODE_UNSPECIFIED: ContentMode.STRUCTURED}
_ORDERING_NUMBERS = {Ordering.NONE: pb.ORDERING_NONE, Ordering.KEY: pb.ORDERING_KEY}
_ORDERINGS = {number: ordering for ordering, number in _ORDERING_NUMBERS.items()} | {pb.ORDERING_UNSPECIFIED: Ordering.NONE}
_POINT_NUMBERS = {StartPoint.NOW: pb.START_POINT_NOW, StartPoint.BEGINNING: pb.START_POINT_BEGINNING}
_POINTS = {number: point for point, number in _POINT_NUMBERS.items()}
_UNKNOWN_START = -1
_SCHEME_NUMBERS = {Scheme.V1: pb.SIGNATURE_SCHEME_V1, Scheme.V1A: pb.SIGNATURE_SCHEME_V1A}
_SCHEMES = {number: scheme for scheme, number in _SCHEME_NUMBERS.items()}
_CONSENT_NUMBERS = {
    Consent.PENDING: pb.VERIFICATION_STATE_PENDING,
    Consent.GRANTED: pb.VERIFICATION_STATE_GRANTED,
    Consent.REFUSED: pb.VERIFICATION_STATE_REFUSED,
    Consent.FAILED: pb.VERIFICATION_STATE_FAILED,
}
_CONSENTS = {number: consent for consent, number in _CONSENT_NUMBERS.items()}


def config_draft(message: pb.SubscriptionConfig) -> ConfigDraft:
    """Return the limits, order, start and description that a caller wants."""
    retry = message.retry
    return ConfigDraft(
        description=message.description,
        rate_per_second=message.rate_per_second if message.HasField("rate_per_second") else None,
        in_flight_max=message.in_flight_max if message.HasField("in_flight_max") else None,
        retry=RetryPolicy(
            delays_ms=tuple(duration_ms(delay) for delay in retry.delays.delays) if retry.HasField("delays") else None,
            attempts_max=retry.attempts_max if retry.HasField("attempts_max") else None,
            final_statuses=tuple(retry.final_statuses),
        ),
        ordering=_ORDERINGS.get(message.ordering),
        start=_start(message.start) if message.HasField("start") else None,
        parts=message.parts,
    )


def config_message(config: Config) -> pb.SubscriptionConfig:
    """Return the limits, order, start and description as the contract's message."""
    return pb.SubscriptionConfig(
        description=config.description,
        rate_per_second=config.rate_per_second,
        in_flight_max=config.in_flight_max,
        retry=None if config.retry == RetryPolicy() else _retry_message(config.retry),
        ordering=_ORDERING_NUMBERS[config.ordering],
        start=_start_message(config.start),
    )


def _retry_message(retry: RetryPolicy) -> pb.RetryPolicy:
    delays_ms = retry.delays_ms
    return pb.RetryPolicy(
        delays=None if delays_ms is None else pb.RetryDelays(delays=[_duration(delay_ms) for delay_ms in delays_ms]),
        attempts_max=retry.attempts_max,
        final_statuses=retry.final_statuses,
    )


def _start(message: pb.Start) -> Start:
    return timestamp_ms(message.time) if message.HasField("time") else _POINTS.get(message.point, _UNKNOWN_START)


def _start_message(start: Start) -> pb.Start:
    return pb.Start(point=_POINT_NUMBERS[start]) if isinstance(start, StartPoint) else pb.Start(time=timestamp(start))


def settings_draft(message: pb.ProtocolSettings) -> SettingsDraft:
    """Return the request settings that a caller wants."""
    return SettingsDraft(
        headers=tuple(message.headers.items()),
        timeout_ms=duration_ms(message.timeout) if message.HasField("timeout") else None,
        content_mode=_MODES.get(message.content_mode),
        signatures=tuple(_SCHEMES.get(scheme) for scheme in message.signatures),
        http_message_signature=message.http_message_signature,
        ca_certificates=message.ca_certificates,
    )


def settings_message(settings: ProtocolSettings) -> pb.ProtocolSettings:
    """Return request settings as the contract's message."""
    return pb.ProtocolSettings(
        headers=dict(settings.headers),
        timeout=None if settings.timeout_ms is None else _duration(settings.timeout_ms),
        content_mode=_MODE_NUMBERS[settings.content_mode],
        signatures=[_SCHEME_NUMBERS[scheme] for scheme in settings.signatures],
        http_message_signature=settings.http_message_signature,
        ca_certificates=settings.ca_certificates,
    )


def credential_draft(message: pb.SinkCredential) -> SecretCredential | None:
    """Return the credential that a caller wants; None for no credential."""
    name = message.WhichOneof("kind")
    if name is None:
        return None
    inner = getattr(message, name)
    return credential_of(CredentialKind(name), {field.name: getattr(inner, field.name) for field in inner.DESCRIPTOR.fields})


def credential_message(credential: Credential) -> pb.SinkCredential:
    """Return a credential as its owner sees it: its secret member is empty."""
    return _credential_message(credential.kind, credential.shown)


def secret_credential_message(credential: Credential, secret: str) -> pb.SinkCredential:
    """Return a credential with its secret member, for delivery only."""
    return _credential_message(credential.kind, {**credential.shown, SECRET[credential.kind]: secret})


def scheme_of(number: pb.SignatureScheme.ValueType, secret: str) -> Scheme | None:
    """Return the scheme whose secret shall be rotated; None for a number that the contract does not know."""
    if number == pb.SIGNATURE_SCHEME_UNSPECIFIED:
        return Scheme.V1A if secret.startswith(PRIVATE_PREFIX) else Scheme.V1
    return _SCHEMES.get(number)


def signing_secrets(secrets: Iterable[SigningSecret]) -> list[pb.SigningSecret]:
    """Return the secrets of the scheme V1, in clear text."""
    return [signing_secret_message(secret) for secret in secrets if secret.scheme is Scheme.V1]


def signing_keys(secrets: Iterable[SigningSecret], *, private: bool = False) -> list[pb.SigningKey]:
    """Return the keys of the scheme V1A; `private` adds the private halves, for delivery only."""
    return [signing_key_message(secret, private=private) for secret in secrets if secret.scheme is Scheme.V1A]


def signing_secret_message(secret: SigningSecret) -> pb.SigningSecret:
    """Return a signing secret, in clear text, as the contract's message."""
    return pb.SigningSecret(
        secret=secret.secret,
        create_time=timestamp(secret.create_ms),
        expire_time=optional_timestamp(secret.expire_ms),
        key_id=key_id(secret.secret),
    )


def signing_key_message(secret: SigningSecret, *, private: bool = False) -> pb.SigningKey:
    """Return an Ed25519 key as the contract's message; `private` adds the private half, for delivery only."""
    public = public_key(secret.secret)
    return pb.SigningKey(
        public_key=public,
        private_key=secret.secret if private else "",
        create_time=timestamp(secret.create_ms),
        expire_time=optional_timestamp(secret.expire_ms),
        key_id=key_id(public),
    )


def verification_message(verification: Verification) -> pb.Verification:
    """Return a sink's verification as the contract's message."""
    return pb.Verification(
        state=_CONSENT_NUMBERS[verification.consent],
        rate_per_minute=verification.rate_per_minute,
        detail=verification.detail,
        time=timestamp(verification.time_ms),
    )


def consent_of(message: pb.Verification) -> Consent | None:
    """Return the consent in a report; None for a number that the contract does not know, or unspecified."""
    return _CONSENTS.get(message.state)


def rate_of(message: pb.Verification | pb.ConfirmVerificationRequest) -> int | None:
    """Return how many requests a minute a sink permits; None for no limit."""
    return message.rate_per_minute if message.HasField("rate_per_minute") else None


def duration_ms(duration: Duration) -> int:
    """Return a duration in whole milliseconds, rounded down."""
    return duration.seconds * 1000 + duration.nanos // 1_000_000


def timestamp_ms(time: Timestamp) -> int:
    """Return a protobuf timestamp in whole milliseconds, rounded down."""
    return time.seconds * 1000 + time.nanos // 1_000_000


def timestamp(time_ms: int) -> Timestamp:
    """Return a time as a protobuf timestamp."""
    seconds, rest_ms = divmod(time_ms, 1000)
    return Timestamp(seconds=seconds, nanos=rest_ms * 1_000_000)


def optional_timestamp(time_ms: int | None) -> Timestamp | None:
    """Return a time as a protobuf timestamp; None for no time."""
    return None if time_ms is None else timestamp(time_ms)


def _duration(time_ms: int) -> Duration:
    seconds, rest_ms = divmod(time_ms, 1000)
    return Duration(seconds=seconds, nanos=rest_ms * 1_000_000)


def _credential_message(kind: CredentialKind, members: Mapping[str, str]) -> pb.SinkCredential:
    match kind:
        case CredentialKind.PLAIN:
            return pb.SinkCredential(plain=pb.PlainCredential(**members))
        case CredentialKind.ACCESS_TOKEN:
            return pb.SinkCredential(access_token=pb.AccessTokenCredential(**members))
        case CredentialKind.HEADER:
            return pb.SinkCredential(header=pb.HeaderCredential(**members))
        case CredentialKind.OAUTH2:
            return pb.SinkCredential(oauth2=pb.OAuth2Credential(**members))
        case CredentialKind.MTLS:
            return pb.SinkCredential(mtls=pb.MutualTlsCredential(**members))
