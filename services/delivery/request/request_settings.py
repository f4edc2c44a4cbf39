"""Request settings: a subscription as delivery knows it, and how to make its requests.

registry ─Watch─▶ registry_client: wire → [request_settings] → lane, request_builder

Law: pure. A setting that the registry leaves open is None here; the operator's setting then applies.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from services.delivery.model import ContentMode, Secret, SubscriptionStatus
from services.delivery.request.credentials import Credential, MutualTls
from services.delivery.request.signing import SigningKey
from services.delivery.request.sink_fingerprint import sink_fingerprint
from services.delivery.transport.protocol import Tls


@dataclass(frozen=True, slots=True)
class OwnRetryPolicy:
    """A subscription's own retry policy; None: the operator's setting. Without `delays_s` there is no further attempt."""

    delays_s: tuple[float, ...] | None = None
    attempts_max: int | None = None
    final_statuses: frozenset[int] = frozenset()
    """Status codes of answers after which there is no further attempt."""


@dataclass(frozen=True, slots=True)
class RequestSettings:
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
    retry: OwnRetryPolicy = OwnRetryPolicy()
    is_ordered: bool = False
    """Whether an unfinished event holds back the later events of its key."""

    @property
    def sink_fingerprint(self) -> int:
        """A number that another sink or another credential changes; see `sink_fingerprint`."""
        return sink_fingerprint(self.sink_revision, self.credential)

    def is_same_sink(self, other: "RequestSettings") -> bool:
        """Return whether both name the same sink and the same credential, so that the failures of one count for the other."""
        return self.sink_revision == other.sink_revision and self.credential == other.credential


class Disabled(NamedTuple):
    """Since when (ms since 1970, or later: the subscription may have changed since) and why a subscription is disabled."""

    since_ms: int
    reason: str


@dataclass(frozen=True, slots=True)
class Subscription:
    """A subscription as delivery knows it. Not a tuple: few are made, but every delivery reads fields, and slots read faster."""

    id: str
    consumer_id: str
    sink: str
    types: tuple[str, ...]
    source: str
    status: SubscriptionStatus
    revision: int
    settings: RequestSettings
    start_ms: int | None = None
    """The time of acceptance, in ms since 1970, of the first event that it wants; 0: the oldest in the log; None: those after it."""
    disabled: Disabled | None = None


def rate_limit(granted_per_minute: int | None, configured_per_second: float | None) -> float | None:
    """Return the rate limit in requests a second: the lower of the sink's limit and its owner's; None for no limit."""
    limits = [] if granted_per_minute is None else [granted_per_minute / 60]
    return min([*limits, *([] if configured_per_second is None else [configured_per_second])], default=None)


def tls_of(settings: RequestSettings) -> Tls | None:
    """Return what the sink's TLS needs beyond the default; None for nothing."""
    credential = settings.credential
    if not settings.ca_certificates and not isinstance(credential, MutualTls):
        return None
    certificate, key = (credential.certificate, credential.private_key) if isinstance(credential, MutualTls) else ("", "")
    return Tls(settings.ca_certificates.encode(), certificate.encode(), key.encode())
