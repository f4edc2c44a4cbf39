"""Validation: what a caller may ask the registry to store. It finds every wrong field, not only the first.

subscription_server → [validation] → store
                ├ settings_validation   → certificates, header_rules
                └ credential_validation → certificates, header_rules

Law: pure. Each check returns the problems that it finds; `refuse` turns all problems of a call into one failure.
"""

import dataclasses
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from services.egress.policy import EgressPolicy
from services.runtime.consumer_scope import EVERYONE, Scope, parse_scope, scope_problem
from services.runtime.errors import Failure, FieldError, Reason, invalid_fields
from services.runtime.event_types import event_type_pattern_problem, event_type_problem, reserved_type_problem
from services.runtime.ids import is_id
from services.subscription import credential
from services.subscription.credential import SecretCredential
from services.subscription.model import Protocol, Role, Scheme, Subscription
from services.subscription.rules.credential_validation import credential_problems, header_clash_problems
from services.subscription.rules.settings_validation import (
    CONFIG_PATHS,
    HEADER_PATH,
    SETTINGS_PATHS,
    ConfigDraft,
    SettingsDraft,
    config_problems,
    merge_config,
    merge_settings,
    settings_problems,
)
from services.subscription.rules.signing_key import private_key_problem
from services.subscription.rules.signing_secret import secret_problem

TYPES_MAX = 100
SINK_CHARS_MAX = 2048
SOURCE_CHARS_MAX = 1024
REASON_CHARS_MAX = 500
EVENT_TYPE_DESCRIPTION_CHARS_MAX = 4000
EVENT_TYPE_NAMES_MAX = 1000
NAME_CHARS_MAX = 200
REQUEST_ID_BYTES_MAX = 300
OVERLAP_DEFAULT_MS = 24 * 3600 * 1000
OVERLAP_MAX_MS = 7 * 24 * 3600 * 1000
# The last millisecond of the year 9999, which is the last one of a protobuf Timestamp.
TIME_MS_MAX = 253_402_300_799_999

SUBSCRIPTION_PATHS: Final = frozenset({"sink", "types", "source", *CONFIG_PATHS, *SETTINGS_PATHS, *credential.PATHS})
_SECTIONS: Final = ("config", "protocol_settings", "sink", "sink_credential", "source", "types")

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class ForbiddenSink(FieldError):  # noqa: N818 - no exception
    """A well-formed sink that the policy forbids. If this is a call's only problem, the failure has its own reason."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class SubscriptionDraft:
    """The subscription that a caller wants, before validation; `protocol` None: a number that the contract does not know."""

    sink: str
    protocol: Protocol | None
    types: tuple[str, ...]
    source: str
    config: ConfigDraft
    settings: SettingsDraft
    credential: SecretCredential | None

    def urls(self, paths: Collection[str] | None = None) -> list[str]:
        """Return the URLs that the draft brings in: all of them, or those in the sections that `paths` name."""
        sections = {"sink", credential.SECTION} if paths is None else {path.partition(".")[0] for path in paths}
        token_url = "" if self.credential is None else self.credential.credential.shown.get("token_url", "")
        return [url for section, url in (("sink", self.sink), (credential.SECTION, token_url)) if url and section in sections]


@dataclass(frozen=True, slots=True)
class KeyDraft:
    """The API key that a caller wants, before validation; `role` None: unset or unknown."""

    role: Role | None
    consumer_id: str
    name: str
    expire_ms: int | None


def refuse(problems: Sequence[FieldError]) -> None:
    """Raise the failure that names all problems; return if there are none."""
    match problems:
        case []:
            return
        case [ForbiddenSink() as only]:
            raise Failure(Reason.SINK_FORBIDDEN, f"{only.field}: {only.description}", fields=problems)
        case _:
            raise invalid_fields(problems)


def valid_scope(consumer_id: str, problems: Sequence[FieldError]) -> Scope:
    """Return the scope of a call; raise the failure that names all its `problems` and a missing scope."""
    problem = scope_problem(consumer_id)
    refuse([*([] if problem is None else [FieldError("consumer_id", problem)]), *problems])
    return parse_scope(consumer_id)


def owner_problems(consumer_id: str) -> list[FieldError]:
    """Validate the owner of a new subscription: one consumer, since no subscription belongs to all."""
    if consumer_id and consumer_id != EVERYONE.text:
        return []
    return [FieldError("consumer_id", "is required: the id of the consumer that is to own the subscription, con_…")]


def required_problems(field: str, value: str) -> list[FieldError]:
    """Check that a required field is not empty."""
    return [] if value else [FieldError(field, "is required")]


def request_id_problems(request_id: str) -> list[FieldError]:
    """Validate the request id (idempotency key) of a call."""
    if len(request_id.encode()) <= REQUEST_ID_BYTES_MAX:
        return []
    return [FieldError("request_id", f"must be at most {REQUEST_ID_BYTES_MAX} bytes")]


def secret_problems(secret: str, scheme: Scheme | None = Scheme.V1) -> list[FieldError]:
    """Validate a signing secret or private key that the caller brings. An empty one is valid: the registry then makes a new one."""
    if scheme is None:
        return [FieldError("scheme", "must be SIGNATURE_SCHEME_V1 or SIGNATURE_SCHEME_V1A")]
    judge = secret_problem if scheme is Scheme.V1 else private_key_problem
    problem = judge(secret) if secret else None
    return [] if problem is None else [FieldError("secret", problem)]


def overlap_problems(overlap_ms: int) -> list[FieldError]:
    """Validate for how long the live secrets stay valid beside a new one."""
    if 0 <= overlap_ms <= OVERLAP_MAX_MS:
        return []
    return [FieldError("overlap", f"must be between 0 and {OVERLAP_MAX_MS // 1000} seconds (7 days)")]


def mask_problems(paths: Sequence[str]) -> list[FieldError]:
    """Validate the fields that an update names."""
    known = ", ".join(_SECTIONS)
    if not paths:
        return [FieldError("update_mask", f"must name at least one field: {known}")]
    problems = [
        FieldError(f"update_mask.paths[{index}]", f"cannot be changed; name one of {known}, or a field below one of them")
        for index, path in enumerate(paths)
        if path not in SUBSCRIPTION_PATHS and not path.startswith(HEADER_PATH)
    ]
    if len({path.split(".")[1] for path in paths if path in credential.PATHS and path != credential.SECTION}) > 1:
        problems.append(FieldError("update_mask", "must name fields of only one kind of credential"))
    return problems


def merge_draft(
    current: Subscription, kept: SecretCredential | None, wanted: SubscriptionDraft, paths: Collection[str]
) -> SubscriptionDraft:
    """Return the draft of an update; in the sections that have members, members that the update does not name keep the stored value."""
    return dataclasses.replace(
        wanted,
        config=merge_config(current.config, wanted.config, paths),
        settings=merge_settings(current.settings, wanted.settings, paths),
        credential=credential.merge(kept, wanted.credential, paths),
    )


def subscription_problems(
    draft: SubscriptionDraft, policy: EgressPolicy, refusals: Mapping[str, str], paths: Collection[str] | None = None
) -> list[FieldError]:
    """Validate a subscription: all of it, or the sections that an update's `paths` name.

    `refusals` holds the URLs whose names resolve to forbidden addresses, with the reasons.
    """
    checks: dict[str, Callable[[], list[FieldError]]] = {
        "sink": lambda: _sink_problems(draft.sink, policy, refusals),
        "protocol": lambda: [] if draft.protocol else [FieldError("subscription.protocol", "must be PROTOCOL_HTTP")],
        "types": lambda: _types_problems(draft.types),
        "source": lambda: _source_problems(draft.source),
        "config": lambda: config_problems(draft.config),
        "protocol_settings": lambda: settings_problems(draft.settings),
        "sink_credential": lambda: credential_problems(draft.credential, policy, refusals),
    }
    chosen = checks.keys() if paths is None else {path.partition(".")[0] for path in paths}
    problems = [problem for name, check in checks.items() if name in chosen for problem in check()]
    if chosen & {"protocol_settings", "sink_credential"}:
        problems += header_clash_problems(draft.credential, draft.settings.headers)
    return problems


def reason_problems(reason: str) -> list[FieldError]:
    """Validate the reason for which a subscription shall be disabled."""
    return _text_problems("reason", reason, REASON_CHARS_MAX) if reason else [FieldError("reason", "is required")]


def detail_problems(field: str, detail: str) -> list[FieldError]:
    """Validate the detail of a sink's answer."""
    return _text_problems(field, detail, REASON_CHARS_MAX)


def rate_problems(field: str, rate_per_minute: int | None) -> list[FieldError]:
    """Validate how many requests a minute a sink permits."""
    if rate_per_minute is None or rate_per_minute > 0:
        return []
    return [FieldError(field, "must be above 0; leave it out if there is no limit")]


def consumer_name_problems(name: str) -> list[FieldError]:
    """Validate a consumer's name."""
    if name.strip():
        return _text_problems("consumer.name", name, NAME_CHARS_MAX)
    return [FieldError("consumer.name", f"is required, 1 to {NAME_CHARS_MAX} characters")]


def key_id_problems(key_id: str) -> list[FieldError]:
    """Validate the id of the API key with which an administrator calls."""
    return [] if is_id(key_id, "key") else [FieldError("key_id", "is required: the id of the caller's API key, key_…")]


def key_problems(draft: KeyDraft, now_ms: int) -> list[FieldError]:
    """Validate an API key."""
    problems = _text_problems("key.name", draft.name, NAME_CHARS_MAX)
    if draft.role is None:
        problems.append(FieldError("key.role", "must be ROLE_ADMIN, ROLE_EMITTER or ROLE_CONSUMER"))
    if draft.role is Role.CONSUMER and not draft.consumer_id:
        problems.append(FieldError("key.consumer_id", "is required for the role consumer: the id of the consumer that owns the key, con_…"))
    if draft.role in {Role.ADMIN, Role.EMITTER} and draft.consumer_id:
        problems.append(FieldError("key.consumer_id", "must be left out: only a key of the role consumer belongs to a consumer"))
    if draft.expire_ms is not None and not now_ms < draft.expire_ms <= TIME_MS_MAX:
        problems.append(
            FieldError("key.expire_time", "must be in the future and before the year 10000; leave it out if the key is never to expire")
        )
    return problems


def event_type_problems(name: str, description: str) -> list[FieldError]:
    """Validate an entry of the catalogue."""
    problems = _text_problems("event_type.description", description, EVENT_TYPE_DESCRIPTION_CHARS_MAX)
    if problem := event_type_problem(name) or reserved_type_problem(name):
        problems.append(FieldError("event_type.name", problem))
    return problems


def event_type_names_problems(names: Sequence[str]) -> list[FieldError]:
    """Validate how many event types a call asks about; the names themselves may be any text."""
    if 1 <= len(names) <= EVENT_TYPE_NAMES_MAX:
        return []
    return [FieldError("names", f"must be 1 to {EVENT_TYPE_NAMES_MAX} names; these are {len(names)}")]


def _sink_problems(sink: str, policy: EgressPolicy, refusals: Mapping[str, str]) -> list[FieldError]:
    if not sink:
        return [FieldError("subscription.sink", "is required: the URL that is to receive the webhooks")]
    if len(sink) > SINK_CHARS_MAX:
        return [FieldError("subscription.sink", f"must be at most {SINK_CHARS_MAX} characters")]
    why = policy.check_url(sink) or refusals.get(sink)
    return [] if why is None else [ForbiddenSink("subscription.sink", why)]


def _types_problems(types: Sequence[str]) -> list[FieldError]:
    if len(types) > TYPES_MAX:
        return [FieldError("subscription.types", f"must be at most {TYPES_MAX} types; these are {len(types)}")]
    return [
        FieldError(f"subscription.types[{index}]", problem)
        for index, pattern in enumerate(types)
        if (problem := event_type_pattern_problem(pattern))
    ]


def _source_problems(source: str) -> list[FieldError]:
    if _CONTROL.search(source):
        return [FieldError("subscription.source", "must not have control characters")]
    return _text_problems("subscription.source", source, SOURCE_CHARS_MAX)


def _text_problems(field: str, text: str, chars_max: int) -> list[FieldError]:
    return [] if len(text) <= chars_max else [FieldError(field, f"must be at most {chars_max} characters; this has {len(text)}")]
