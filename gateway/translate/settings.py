"""Settings: translates a subscription's limits, request settings, credential and verification between JSON and the contract."""

from collections.abc import Mapping

from google.protobuf.duration_pb2 import Duration
from hooktide.subscription.v1 import subscription_pb2 as pb

from gateway.translate.fields import Fields
from gateway.translate.names import CREDENTIAL_KINDS, CREDENTIAL_MEMBERS
from gateway.translate.values import one_of, time_json, word_of

_MODES = {"structured": pb.CONTENT_MODE_STRUCTURED, "binary": pb.CONTENT_MODE_BINARY, "data_only": pb.CONTENT_MODE_DATA_ONLY}
SCHEMES = {"v1": pb.SIGNATURE_SCHEME_V1, "v1a": pb.SIGNATURE_SCHEME_V1A}
# The range of a protobuf Duration; the registry decides which values are sensible.
SECONDS_MAX = 315_576_000_000
_IN_FLIGHT_MAX = (1 << 31) - 1
_TYPES = {kind: name for name, kind in CREDENTIAL_KINDS.items()}


def config_of(fields: Fields) -> pb.SubscriptionConfig:
    """Return the limits and the description from the members of `config`."""
    retry = fields.object("retry")
    delays_s = retry.numbers("delays_seconds", SECONDS_MAX)
    return pb.SubscriptionConfig(
        description=fields.text("description"),
        rate_per_second=fields.number("rate_per_second", SECONDS_MAX),
        in_flight_max=fields.whole("in_flight_max", _IN_FLIGHT_MAX),
        retry=None if delays_s is None else pb.RetryPolicy(delays=[_duration(delay_s) for delay_s in delays_s]),
    )


def config_json(config: pb.SubscriptionConfig) -> dict[str, object]:
    """Return the limits and the description; null for a value that the operator's default decides."""
    delays_s = [_seconds(delay) for delay in config.retry.delays]
    return {
        "description": config.description or None,
        "rate_per_second": _number(config.rate_per_second) if config.HasField("rate_per_second") else None,
        "in_flight_max": config.in_flight_max if config.HasField("in_flight_max") else None,
        "retry": {"delays_seconds": delays_s} if config.HasField("retry") else None,
    }


def settings_of(fields: Fields) -> pb.ProtocolSettings:
    """Return the request settings from the members of `protocolsettings`."""
    timeout_s = fields.number("timeout_seconds", SECONDS_MAX)
    return pb.ProtocolSettings(
        headers=fields.object("headers").every_text(),
        timeout=None if timeout_s is None else _duration(timeout_s),
        content_mode=fields.word("content_mode", _MODES, pb.CONTENT_MODE_UNSPECIFIED),
        signatures=fields.words("signatures", SCHEMES),
        http_message_signature=fields.flag("http_message_signature"),
        ca_certificates=fields.text("ca_certificates"),
    )


def settings_json(settings: pb.ProtocolSettings) -> dict[str, object]:
    """Return the request settings; null for a value that the operator's default decides."""
    return {
        "headers": dict(sorted(settings.headers.items())),
        "timeout_seconds": _seconds(settings.timeout) if settings.HasField("timeout") else None,
        "content_mode": word_of(pb.ContentMode.Name(settings.content_mode), "CONTENT_MODE_"),
        "signatures": [word_of(pb.SignatureScheme.Name(scheme), "SIGNATURE_SCHEME_") for scheme in settings.signatures],
        "http_message_signature": settings.http_message_signature,
        "ca_certificates": settings.ca_certificates or None,
    }


def credential_of(fields: Fields) -> pb.SinkCredential:
    """Return the credential from the members of `sinkcredential`; only the members of its type are permitted."""
    kind = fields.word("credentialtype", CREDENTIAL_KINDS, "")
    if not kind:
        if not fields.has_value("credentialtype"):
            fields.problem("credentialtype", f"is required; it {one_of(CREDENTIAL_KINDS)}")
        fields.ignore(*(member for members in CREDENTIAL_MEMBERS.values() for member in members))
        return pb.SinkCredential()
    members = {field: fields.text(member) for member, field in CREDENTIAL_MEMBERS[kind].items()}
    match kind:
        case "plain":
            return pb.SinkCredential(plain=pb.PlainCredential(**members))
        case "access_token":
            return pb.SinkCredential(access_token=pb.AccessTokenCredential(**members))
        case "header":
            return pb.SinkCredential(header=pb.HeaderCredential(**members))
        case "oauth2":
            return pb.SinkCredential(oauth2=pb.OAuth2Credential(**members))
        case _:
            return pb.SinkCredential(mtls=pb.MutualTlsCredential(**members))


def credential_json(credential: pb.SinkCredential) -> dict[str, object] | None:
    """Return a credential without its secret member, whatever the message holds; None if there is no credential."""
    kind = credential.WhichOneof("kind")
    if kind is None:
        return None
    *shown, _secret = CREDENTIAL_MEMBERS[kind].items()
    inner = getattr(credential, kind)
    return {"credentialtype": _TYPES[kind], **{member: getattr(inner, field) or None for member, field in shown}}


def verification_json(verification: pb.Verification) -> dict[str, object]:
    """Return the result of a sink verification; a rate of null means no limit."""
    return {
        "state": word_of(pb.VerificationState.Name(verification.state), "VERIFICATION_STATE_"),
        "rate_per_minute": verification.rate_per_minute if verification.HasField("rate_per_minute") else None,
        "detail": verification.detail or None,
        "at": time_json(verification.time),
    }


def config_paths(config: Mapping[str, object]) -> list[str]:
    """Return the contract's paths that a merge patch of `config` changes."""
    paths = [f"config.{name}" for name in ("description", "rate_per_second", "in_flight_max") if name in config]
    retry = config.get("retry")
    if isinstance(retry, dict):
        return paths + (["config.retry.delays"] if "delays_seconds" in retry else [])
    return paths + (["config.retry"] if "retry" in config else [])


def settings_paths(settings: Mapping[str, object]) -> list[str]:
    """Return the contract's paths that a merge patch of `protocolsettings` changes; of the headers, those that it names."""
    names = {"timeout_seconds": "timeout"} | {
        name: name for name in ("content_mode", "signatures", "http_message_signature", "ca_certificates")
    }
    paths = [f"protocol_settings.{field}" for name, field in names.items() if name in settings]
    headers = settings.get("headers")
    if isinstance(headers, dict):
        return paths + [f"protocol_settings.headers.{name}" for name in headers]
    return paths + (["protocol_settings.headers"] if "headers" in settings else [])


def credential_paths(credential: Mapping[str, object]) -> list[str]:
    """Return the contract's paths that a merge patch of `sinkcredential` changes: the members of its type that it names."""
    kind = CREDENTIAL_KINDS.get(str(credential.get("credentialtype")), "")
    return [f"sink_credential.{kind}.{field}" for member, field in CREDENTIAL_MEMBERS.get(kind, {}).items() if member in credential]


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromMilliseconds(round(seconds * 1000))
    return duration


def _seconds(duration: Duration) -> float:
    return _number(duration.ToMilliseconds() / 1000)


def _number(value: float) -> float:
    """Return a number in its shortest form: 15, not 15.0."""
    return int(value) if value.is_integer() else value
