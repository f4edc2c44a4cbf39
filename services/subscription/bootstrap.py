"""Bootstrap: creates the first keys, since only an admin's key can create keys.

supervisor → [bootstrap] → startup_checks, consumers, keys
"""

from dataclasses import dataclass, field

from services.runtime.clock import Clock, SystemClock, unix_ms
from services.runtime.configuration.settings import SubscriptionSettings
from services.subscription.model import Role
from services.subscription.rules.validation import KeyDraft
from services.subscription.store import consumers, keys
from services.subscription.store.startup_checks import open_registry
from services.subscription.store.transaction import Writing

FIRST_CONSUMER = "first consumer"


@dataclass(frozen=True, slots=True)
class BootstrapKeys:
    """The first keys in clear text, one for each role, and the consumer ("con_…") that owns the consumer's key."""

    consumer_id: str
    admin: str = field(repr=False)
    emitter: str = field(repr=False)
    consumer: str = field(repr=False)


def bootstrap(settings: SubscriptionSettings, clock: Clock | None = None) -> BootstrapKeys | None:
    """Create the first consumer and the first keys in one transaction; return None if any key was ever created.

    Call this before the service runs: it opens the registry exclusively and closes it again. Raises `StartError` as the service's own
    start does, and also if the service is running.
    """
    with open_registry(settings, clock) as registry, registry.database.writer.begin() as connection:
        writing = Writing(connection, registry.vault, unix_ms(clock or SystemClock()), registry.changes_kept)
        if keys.was_any_created(writing):
            return None
        owner = consumers.create(writing, FIRST_CONSUMER).id
        clear = {role: _key(writing, role, owner if role is Role.CONSUMER else "") for role in Role}
        return BootstrapKeys(owner, clear[Role.ADMIN], clear[Role.EMITTER], clear[Role.CONSUMER])


def _key(writing: Writing, role: Role, owner: str) -> str:
    _, clear = keys.create(writing, KeyDraft(role=role, consumer_id=owner, name=f"first {role.value} key", expire_ms=None))
    return clear
