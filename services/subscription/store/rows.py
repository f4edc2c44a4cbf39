"""Rows: converts a subscription to its row and back.

subscriptions, changes → [rows] → schema

The JSON columns leave out default values, so that a row holds only what its owner has set.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from services.subscription.credential import Credential, CredentialKind
from services.subscription.model import (
    Config,
    Consent,
    ContentMode,
    Ordering,
    Pause,
    Protocol,
    ProtocolSettings,
    RetryPolicy,
    Scheme,
    StartPoint,
    State,
    Subscription,
    Verification,
)
from services.subscription.store.schema import consumers, subscriptions
from services.subscription.store.transaction import Row

_DEFAULT = ProtocolSettings()
SUBSCRIPTION_ROWS = sa.select(subscriptions, consumers.c.pause.label("consumer_pause")).join_from(subscriptions, consumers)
"""Selects the rows of subscriptions, each with the pause of its consumer."""


def subscription_from(row: Row) -> Subscription:
    """Return the subscription in a row of `SUBSCRIPTION_ROWS`."""
    return Subscription(
        id=row.id,
        consumer_id=row.consumer_id,
        sink=row.sink,
        protocol=Protocol(row.protocol),
        types=tuple(row.types),
        source=row.source,
        config=_config_from(row.description, row.limits),
        settings=_settings_from(row.settings),
        credential=None if row.credential is None else credential_from(row.credential),
        state=State(row.state),
        state_reason=row.state_reason,
        verification=None if row.verification is None else _verification_from(row.verification),
        create_ms=row.create_ms,
        update_ms=row.update_ms,
        revision=row.revision,
        sink_revision=row.sink_revision,
        pause=pause_from(row.pause),
        consumer_pause=pause_from(row.consumer_pause),
    )


def columns_of(subscription: Subscription) -> dict[str, object]:
    """Return the columns of a subscription's row."""
    return {
        "id": subscription.id,
        "consumer_id": subscription.consumer_id,
        "sink": subscription.sink,
        "protocol": subscription.protocol.value,
        "types": list(subscription.types),
        "source": subscription.source,
        "description": subscription.config.description,
        "limits": _limits_of(subscription.config),
        "settings": _settings_of(subscription.settings),
        "credential": None if subscription.credential is None else _credential_of(subscription.credential),
        "state": subscription.state.value,
        "state_reason": subscription.state_reason,
        "verification": None if subscription.verification is None else _verification_of(subscription.verification),
        "create_ms": subscription.create_ms,
        "update_ms": subscription.update_ms,
        "revision": subscription.revision,
        "sink_revision": subscription.sink_revision,
        "pause": pause_column(subscription.pause),
    }


def _config_from(description: str, limits: Mapping[str, Any]) -> Config:
    delays_ms, start = limits.get("retry_delays_ms"), limits.get("start", StartPoint.NOW.value)
    return Config(
        description=description,
        rate_per_second=limits.get("rate_per_second"),
        in_flight_max=limits.get("in_flight_max"),
        retry=RetryPolicy(
            delays_ms=None if delays_ms is None else tuple(delays_ms),
            attempts_max=limits.get("attempts_max"),
            final_statuses=tuple(limits.get("final_statuses", ())),
        ),
        ordering=Ordering(limits.get("ordering", Ordering.NONE.value)),
        start=start if isinstance(start, int) else StartPoint(start),
    )


def _limits_of(config: Config) -> dict[str, object]:
    retry, start = config.retry, config.start
    limits = {
        "rate_per_second": config.rate_per_second,
        "in_flight_max": config.in_flight_max,
        "retry_delays_ms": None if retry.delays_ms is None else list(retry.delays_ms),
        "attempts_max": retry.attempts_max,
        "final_statuses": list(retry.final_statuses) or None,
        "ordering": None if config.ordering is Ordering.NONE else config.ordering.value,
        "start": None if start is StartPoint.NOW else start.value if isinstance(start, StartPoint) else start,
    }
    return {name: value for name, value in limits.items() if value is not None}


def _settings_from(settings: Mapping[str, Any]) -> ProtocolSettings:
    return ProtocolSettings(
        headers=tuple(sorted(settings.get("headers", {}).items())),
        timeout_ms=settings.get("timeout_ms"),
        content_mode=ContentMode(settings.get("content_mode", _DEFAULT.content_mode.value)),
        signatures=tuple(Scheme(scheme) for scheme in settings.get("signatures", [scheme.value for scheme in _DEFAULT.signatures])),
        http_message_signature=settings.get("http_message_signature", _DEFAULT.http_message_signature),
        ca_certificates=settings.get("ca_certificates", _DEFAULT.ca_certificates),
    )


def _settings_of(settings: ProtocolSettings) -> dict[str, object]:
    values: dict[str, tuple[object, object]] = {
        "headers": (dict(settings.headers), {}),
        "timeout_ms": (settings.timeout_ms, _DEFAULT.timeout_ms),
        "content_mode": (settings.content_mode.value, _DEFAULT.content_mode.value),
        "signatures": ([scheme.value for scheme in settings.signatures], [scheme.value for scheme in _DEFAULT.signatures]),
        "http_message_signature": (settings.http_message_signature, _DEFAULT.http_message_signature),
        "ca_certificates": (settings.ca_certificates, _DEFAULT.ca_certificates),
    }
    return {name: value for name, (value, default) in values.items() if value != default}


def pause_from(pause: Mapping[str, Any] | None) -> Pause | None:
    """Return the pause in a column."""
    return None if pause is None else Pause(**pause)


def pause_column(pause: Pause | None) -> dict[str, object] | None:
    """Return the column of a pause."""
    return None if pause is None else dataclasses.asdict(pause)


def credential_from(credential: Mapping[str, Any]) -> Credential:
    """Return the credential in a column, without its secret."""
    return Credential(CredentialKind(credential["kind"]), credential["shown"])


def _credential_of(credential: Credential) -> dict[str, object]:
    return {"kind": credential.kind.value, "shown": dict(credential.shown)}


def _verification_from(verification: Mapping[str, Any]) -> Verification:
    return Verification(Consent(verification["consent"]), verification["rate_per_minute"], verification["detail"], verification["time_ms"])


def _verification_of(verification: Verification) -> dict[str, object]:
    return {
        "consent": verification.consent.value,
        "rate_per_minute": verification.rate_per_minute,
        "detail": verification.detail,
        "time_ms": verification.time_ms,
    }
