"""Subscription settings: translates a subscription's limits, request settings and verification between JSON and the contract."""

from collections.abc import Mapping

from google.protobuf.duration_pb2 import Duration
from hooktide.subscription.v1 import subscription_pb2 as pb

from gateway.translate.body_fields import BodyFields
from gateway.translate.enum_words import word_of
from gateway.translate.timestamps import parse_time, time_json

_MODES = {"structured": pb.CONTENT_MODE_STRUCTURED, "binary": pb.CONTENT_MODE_BINARY, "data_only": pb.CONTENT_MODE_DATA_ONLY}
SCHEMES = {"v1": pb.SIGNATURE_SCHEME_V1, "v1a": pb.SIGNATURE_SCHEME_V1A}
# The range of a protobuf Duration; the registry decides which values are sensible.
SECONDS_MAX = 315_576_000_000
_INT_MAX = (1 << 31) - 1
_ORDERINGS = {"none": pb.ORDERING_NONE, "key": pb.ORDERING_KEY}
_START_POINTS = {"now": pb.START_POINT_NOW, "beginning": pb.START_POINT_BEGINNING}
_START_ADVICE = 'must be "now", "beginning" or a time as in RFC 3339, for example 2030-01-31T12:00:00Z'


def config_of(fields: BodyFields) -> pb.SubscriptionConfig:
    """Return the limits, order, start and description from the members of `config`."""
    retry = fields.object("retry")
    delays_s, final_statuses = retry.numbers("delays_seconds", SECONDS_MAX), retry.wholes("final_statuses", _INT_MAX)
    return pb.SubscriptionConfig(
        description=fields.text("description"),
        rate_per_second=fields.number("rate_per_second", SECONDS_MAX),
        in_flight_max=fields.whole("in_flight_max", _INT_MAX),
        retry=pb.RetryPolicy(
            delays=None if delays_s is None else pb.RetryDelays(delays=[_duration(delay_s) for delay_s in delays_s]),
            attempts_max=retry.whole("attempts_max", _INT_MAX),
            final_statuses=final_statuses,
        ),
        ordering=fields.word("ordering", _ORDERINGS, pb.ORDERING_UNSPECIFIED),
        start=_start_of(fields),
    )


def _start_of(fields: BodyFields) -> pb.Start | None:
    word = fields.text("start")
    if not fields.has_value("start"):
        return None
    if word in _START_POINTS:
        return pb.Start(point=_START_POINTS[word])
    try:
        return pb.Start(time=parse_time(word))
    except ValueError:
        if fields.is_text("start"):
            fields.problem("start", _START_ADVICE)
        return None


def config_json(config: pb.SubscriptionConfig) -> dict[str, object]:
    """Return the limits, order, start and description; null for a value that the operator's default decides."""
    return {
        "description": config.description or None,
        "rate_per_second": _number(config.rate_per_second) if config.HasField("rate_per_second") else None,
        "in_flight_max": config.in_flight_max if config.HasField("in_flight_max") else None,
        "retry": _retry_json(config.retry) if config.HasField("retry") else None,
        "ordering": word_of(pb.Ordering.Name(config.ordering), "ORDERING_"),
        "start": _start_json(config.start),
    }


def _retry_json(retry: pb.RetryPolicy) -> dict[str, object]:
    return {
        "delays_seconds": [_seconds(delay) for delay in retry.delays.delays] if retry.HasField("delays") else None,
        "attempts_max": retry.attempts_max if retry.HasField("attempts_max") else None,
        "final_statuses": list(retry.final_statuses),
    }


def _start_json(start: pb.Start) -> str:
    return time_json(start.time) if start.HasField("time") else word_of(pb.StartPoint.Name(start.point), "START_POINT_")


def settings_of(fields: BodyFields) -> pb.ProtocolSettings:
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
    paths = [f"config.{name}" for name in ("description", "rate_per_second", "in_flight_max", "ordering") if name in config]
    # The start is fixed at creation, so null, which restores defaults elsewhere, leaves it as it is.
    paths += ["config.start"] if config.get("start") is not None else []
    retry = config.get("retry")
    if isinstance(retry, dict):
        names = {"delays_seconds": "delays", "attempts_max": "attempts_max", "final_statuses": "final_statuses"}
        return paths + [f"config.retry.{field}" for name, field in names.items() if name in retry]
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


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromMilliseconds(round(seconds * 1000))
    return duration


def _seconds(duration: Duration) -> float:
    return _number(duration.ToMilliseconds() / 1000)


def _number(value: float) -> float:
    """Return a number in its shortest form: 15, not 15.0."""
    return int(value) if value.is_integer() else value
