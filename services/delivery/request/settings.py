"""Settings: how to make a subscription's requests (its terms), read from the registry's message.

registry ─Watch─▶ replica → [settings] → lane, request_builder

Law: pure. A setting that the registry leaves open is None here; the operator's setting then applies.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from hooktide.subscription.v1 import subscription_pb2 as pb

from services.delivery.model import ContentMode, Health, Secret
from services.delivery.request.credentials import AccessToken, Credential, Header, MutualTls, OAuth2, Plain
from services.delivery.request.signing import SigningKey, private_key, secret_key
from services.delivery.transport.protocol import Tls

_MODES = {pb.CONTENT_MODE_BINARY: ContentMode.BINARY, pb.CONTENT_MODE_DATA_ONLY: ContentMode.DATA_ONLY}


@dataclass(frozen=True, slots=True)
class Terms:
    """How to make a subscription's requests. `secrets` and `keys` are empty for schemes that do not sign its requests."""

    sink_revision: int = 0
    content_mode: ContentMode = ContentMode.STRUCTURED
    secrets: tuple[Secret, ...] = ()
    keys: tuple[SigningKey, ...] = ()
    message_signature: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)
    credential: Credential | None = None
    ca_certificates: str = ""
    timeout_s: float | None = None
    rate_per_second: float | None = None
    in_flight_max: int | None = None
    retry_delays_s: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class Subscription:
    """A subscription as delivery knows it. Not a tuple: few are made, but every delivery reads fields, and slots read faster."""

    id: str
    consumer_id: str
    sink: str
    types: tuple[str, ...]
    source: str
    health: Health
    revision: int
    terms: Terms


def terms_of(watched: pb.WatchedSubscription) -> Terms:
    """Return the terms in a Watch message; raises `ValueError` if a secret or key in it is invalid."""
    subscription, settings, config = watched.subscription, watched.subscription.protocol_settings, watched.subscription.config
    verification = subscription.verification
    schemes = set(settings.signatures) or {pb.SIGNATURE_SCHEME_V1}
    granted = verification.rate_per_minute if verification.HasField("rate_per_minute") else None
    configured = config.rate_per_second if config.HasField("rate_per_second") else None
    return Terms(
        sink_revision=subscription.sink_revision,
        content_mode=_MODES.get(settings.content_mode, ContentMode.STRUCTURED),
        secrets=tuple(_secret(each) for each in watched.secrets) if pb.SIGNATURE_SCHEME_V1 in schemes else (),
        keys=tuple(_key(each) for each in watched.keys) if pb.SIGNATURE_SCHEME_V1A in schemes else (),
        message_signature=settings.http_message_signature,
        headers=dict(settings.headers),
        credential=credential_of(watched.sink_credential, settings.ca_certificates),
        ca_certificates=settings.ca_certificates,
        timeout_s=settings.timeout.ToMilliseconds() / 1000 if settings.HasField("timeout") else None,
        rate_per_second=rate_limit(granted, configured),
        in_flight_max=config.in_flight_max if config.HasField("in_flight_max") else None,
        retry_delays_s=tuple(delay.ToMilliseconds() / 1000 for delay in config.retry.delays) if config.HasField("retry") else None,
    )


def rate_limit(granted_per_minute: int | None, configured_per_second: float | None) -> float | None:
    """Return the rate limit in requests a second: the lower of the sink's limit and its owner's; None for no limit."""
    limits = [] if granted_per_minute is None else [granted_per_minute / 60]
    return min([*limits, *([] if configured_per_second is None else [configured_per_second])], default=None)


def tls_of(terms: Terms) -> Tls | None:
    """Return what the sink's TLS needs beyond the default; None for nothing."""
    credential = terms.credential
    if not terms.ca_certificates and not isinstance(credential, MutualTls):
        return None
    certificate, key = (credential.certificate, credential.private_key) if isinstance(credential, MutualTls) else ("", "")
    return Tls(terms.ca_certificates.encode(), certificate.encode(), key.encode())


def credential_of(message: pb.SinkCredential, ca_certificates: str = "") -> Credential | None:
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
    key = secret_key(message.secret)
    if not key:
        raise ValueError("a signing secret is empty")
    return Secret(key, expires_ms)


def _key(message: pb.SigningKey) -> SigningKey:
    expires_ms = message.expire_time.ToMilliseconds() if message.HasField("expire_time") else None
    return SigningKey(private_key(message.private_key), message.key_id, expires_ms)
