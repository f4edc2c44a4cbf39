"""Settings validation: which limits and which request settings a subscription may have.

validation → [settings_validation] → certificates, header_rules

Law: pure. Each check returns the problems that it finds, under the names of the contract.
"""

import dataclasses
import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from services.runtime.errors import FieldError
from services.subscription.model import Config, ContentMode, Ordering, ProtocolSettings, RetryPolicy, Scheme, Start, StartPoint
from services.subscription.rules.certificates import certificates_problem
from services.subscription.rules.header_rules import headers_problems

DESCRIPTION_CHARS_MAX = 1000
RATE_PER_SECOND_MAX = 10_000
IN_FLIGHT_MAX = 1000
DELAYS_MAX = 30
_DAY_MS = 24 * 3600 * 1000
DELAY_MS_MAX = 7 * _DAY_MS
# How long the log keeps events by default; a delivery expires with its event.
DELAYS_SUM_MS_MAX = 7 * _DAY_MS
ATTEMPTS_MAX = DELAYS_MAX + 1
FINAL_STATUSES_MAX = 50
FINAL_STATUSES = range(300, 600)
GONE = 410
PARTS = range(2)
TIMEOUT_MS = range(1000, 30_001)

CONFIG = "config"
SETTINGS = "protocol_settings"
HEADER_PATH: Final = f"{SETTINGS}.headers."
RETRY: Final = f"{CONFIG}.retry"
CONFIG_PATHS: Final = frozenset(
    {
        CONFIG,
        RETRY,
        *(f"{CONFIG}.{name}" for name in ("description", "rate_per_second", "in_flight_max", "ordering", "start", "parts")),
        *(f"{RETRY}.{name}" for name in ("delays", "attempts_max", "final_statuses")),
    }
)
SETTINGS_PATHS: Final = frozenset(
    {
        SETTINGS,
        *(
            f"{SETTINGS}.{name}"
            for name in ("headers", "timeout", "content_mode", "signatures", "http_message_signature", "ca_certificates")
        ),
    }
)


@dataclass(frozen=True, slots=True)
class ConfigDraft:
    """The limits, order, start and description that a caller wants, before validation.

    `ordering` None: a number that the contract does not know. `start` None: the caller does not say; a negative one is not valid.
    """

    description: str
    rate_per_second: float | None
    in_flight_max: int | None
    retry: RetryPolicy
    ordering: Ordering | None
    start: Start | None
    parts: int = 0
    """0 or 1: the subscription is not divided."""

    def to_config(self) -> Config:
        """Return the configuration of a valid draft."""
        assert self.ordering is not None  # noqa: S101 - refused before
        retry = dataclasses.replace(self.retry, final_statuses=tuple(sorted(set(self.retry.final_statuses))))
        start = StartPoint.NOW if self.start is None else self.start
        return Config(self.description, self.rate_per_second, self.in_flight_max, retry, self.ordering, start)


@dataclass(frozen=True, slots=True)
class SettingsDraft:
    """The request settings that a caller wants, before validation. None in an enum field: a number that the contract does not know."""

    headers: tuple[tuple[str, str], ...]
    timeout_ms: int | None
    content_mode: ContentMode | None
    signatures: tuple[Scheme | None, ...]
    http_message_signature: bool
    ca_certificates: str

    def to_settings(self) -> ProtocolSettings:
        """Return the settings of a valid draft."""
        assert self.content_mode is not None  # noqa: S101 - refused before
        schemes = tuple(scheme for scheme in Scheme if scheme in self.signatures)
        headers = tuple(sorted((name.lower(), value) for name, value in self.headers))
        return ProtocolSettings(
            headers, self.timeout_ms, self.content_mode, schemes or (Scheme.V1,), self.http_message_signature, self.ca_certificates
        )


def settings_draft_of(settings: ProtocolSettings) -> SettingsDraft:
    """Return stored settings as a draft."""
    return SettingsDraft(
        settings.headers,
        settings.timeout_ms,
        settings.content_mode,
        settings.signatures,
        settings.http_message_signature,
        settings.ca_certificates,
    )


def merge_config(kept: Config, wanted: ConfigDraft, paths: Collection[str]) -> ConfigDraft:
    """Return the configuration to validate and store after an update that names `paths`; without a start, the stored one stays."""

    def named(name: str) -> bool:
        return CONFIG in paths or f"{CONFIG}.{name}" in paths

    def retry_named(name: str) -> bool:
        return named("retry") or f"{RETRY}.{name}" in paths

    return ConfigDraft(
        description=wanted.description if named("description") else kept.description,
        rate_per_second=wanted.rate_per_second if named("rate_per_second") else kept.rate_per_second,
        in_flight_max=wanted.in_flight_max if named("in_flight_max") else kept.in_flight_max,
        retry=RetryPolicy(
            delays_ms=(wanted if retry_named("delays") else kept).retry.delays_ms,
            attempts_max=(wanted if retry_named("attempts_max") else kept).retry.attempts_max,
            final_statuses=(wanted if retry_named("final_statuses") else kept).retry.final_statuses,
        ),
        ordering=wanted.ordering if named("ordering") else kept.ordering,
        start=kept.start if wanted.start is None or not named("start") else wanted.start,
        parts=wanted.parts if named("parts") else 0,
    )


def merge_settings(kept: ProtocolSettings, wanted: SettingsDraft, paths: Collection[str]) -> SettingsDraft:
    """Return the settings to validate and store after an update that names `paths`."""
    before = settings_draft_of(kept)

    def chosen(name: str) -> SettingsDraft:
        return wanted if SETTINGS in paths or f"{SETTINGS}.{name}" in paths else before

    headers = chosen("headers").headers
    named = {path.removeprefix(HEADER_PATH).lower() for path in paths if path.startswith(HEADER_PATH)}
    if named:
        others = tuple((name, value) for name, value in headers if name.lower() not in named)
        headers = (*others, *((name, value) for name, value in wanted.headers if name.lower() in named))
    return SettingsDraft(
        headers=headers,
        timeout_ms=chosen("timeout").timeout_ms,
        content_mode=chosen("content_mode").content_mode,
        signatures=chosen("signatures").signatures,
        http_message_signature=chosen("http_message_signature").http_message_signature,
        ca_certificates=chosen("ca_certificates").ca_certificates,
    )


def start_problems(start: Start | None, now_ms: int) -> list[FieldError]:
    """Validate the start of a new subscription."""
    if start is None or isinstance(start, StartPoint) or 0 <= start <= now_ms:
        return []
    return [FieldError("subscription.config.start", "must be now, the beginning, or a time from 1970 until now")]


def start_change_problems(kept: Config, merged: ConfigDraft) -> list[FieldError]:
    """Check that an update does not change the start."""
    if merged.start == kept.start:
        return []
    advice = "cannot be changed, since it was fixed at creation; leave it out, or create another subscription"
    return [FieldError("subscription.config.start", advice)]


def config_problems(config: ConfigDraft) -> list[FieldError]:
    """Validate the limits, the order and the description."""
    problems = []
    if len(config.description) > DESCRIPTION_CHARS_MAX:
        advice = f"must be at most {DESCRIPTION_CHARS_MAX} characters; this has {len(config.description)}"
        problems.append(FieldError("subscription.config.description", advice))
    rate = config.rate_per_second
    if rate is not None and not (math.isfinite(rate) and 0 < rate <= RATE_PER_SECOND_MAX):
        advice = f"must be above 0 and at most {RATE_PER_SECOND_MAX}; leave it out if there is no limit"
        problems.append(FieldError("subscription.config.rate_per_second", advice))
    if config.in_flight_max is not None and not 1 <= config.in_flight_max <= IN_FLIGHT_MAX:
        problems.append(FieldError("subscription.config.in_flight_max", f"must be from 1 to {IN_FLIGHT_MAX}"))
    if config.ordering is None:
        problems.append(FieldError("subscription.config.ordering", "must be ORDERING_NONE or ORDERING_KEY"))
    if config.parts not in PARTS:
        problems.append(FieldError("subscription.config.parts", "must be 0 or 1: a subscription cannot be divided"))
    return problems + _retry_problems(config.retry)


def settings_problems(settings: SettingsDraft) -> list[FieldError]:
    """Validate the request settings."""
    problems = headers_problems("subscription.protocol_settings.headers", settings.headers)
    if settings.timeout_ms is not None and settings.timeout_ms not in TIMEOUT_MS:
        advice = f"must be from {TIMEOUT_MS[0] // 1000} to {TIMEOUT_MS[-1] // 1000} seconds"
        problems.append(FieldError("subscription.protocol_settings.timeout", advice))
    if settings.content_mode is None:
        advice = "must be CONTENT_MODE_STRUCTURED, CONTENT_MODE_BINARY or CONTENT_MODE_DATA_ONLY"
        problems.append(FieldError("subscription.protocol_settings.content_mode", advice))
    problems += [
        FieldError(f"subscription.protocol_settings.signatures[{index}]", "must be SIGNATURE_SCHEME_V1 or SIGNATURE_SCHEME_V1A")
        for index, scheme in enumerate(settings.signatures)
        if scheme is None
    ]
    if settings.ca_certificates:
        why = certificates_problem(settings.ca_certificates)
        problems += [] if why is None else [FieldError("subscription.protocol_settings.ca_certificates", why)]
    return problems


def _retry_problems(retry: RetryPolicy) -> list[FieldError]:
    field = "subscription.config.retry"
    problems = _delay_problems(retry.delays_ms or ())
    if retry.attempts_max is not None and not 1 <= retry.attempts_max <= ATTEMPTS_MAX:
        problems.append(FieldError(f"{field}.attempts_max", f"must be from 1 to {ATTEMPTS_MAX}"))
    statuses = retry.final_statuses
    if len(statuses) > FINAL_STATUSES_MAX:
        advice = f"must be at most {FINAL_STATUSES_MAX} status codes; these are {len(statuses)}"
        return [*problems, FieldError(f"{field}.final_statuses", advice)]
    for index, status in enumerate(statuses):
        if status == GONE:
            advice = f"must not be {GONE}, which always disables the subscription"
            problems.append(FieldError(f"{field}.final_statuses[{index}]", advice))
        elif status not in FINAL_STATUSES:
            advice = f"must be from {FINAL_STATUSES[0]} to {FINAL_STATUSES[-1]}"
            problems.append(FieldError(f"{field}.final_statuses[{index}]", advice))
    return problems


def _delay_problems(delays_ms: tuple[int, ...]) -> list[FieldError]:
    field = "subscription.config.retry.delays"
    if len(delays_ms) > DELAYS_MAX:
        return [FieldError(field, f"must be at most {DELAYS_MAX} delays; these are {len(delays_ms)}")]
    problems = [
        FieldError(f"{field}[{index}]", f"must be above 0 and at most {DELAY_MS_MAX // 1000} seconds (7 days)")
        for index, delay_ms in enumerate(delays_ms)
        if not 0 < delay_ms <= DELAY_MS_MAX
    ]
    if not problems and sum(delays_ms) > DELAYS_SUM_MS_MAX:
        problems.append(FieldError(field, f"must be at most {DELAYS_SUM_MS_MAX // 1000} seconds in all (7 days)"))
    return problems
