"""Authentication: finds the caller of an API key.

client → pipeline → [authentication] → api_key_cache → registry
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from services.runtime.api_key_cache import ApiKeyCache, Ask
from services.runtime.clock import Clock
from services.runtime.consumer_scope import EVERYONE, OwnConsumer, Scope
from services.runtime.errors import Failure, Reason
from services.runtime.rpc.access import bearer


class Role(Enum):
    """What an API key may do."""

    ADMIN = "admin"
    EMITTER = "emitter"
    CONSUMER = "consumer"


@dataclass(frozen=True, slots=True)
class Caller:
    """The owner of an API key. `shown` is the key as its owner may read it, without its clear text."""

    key_id: str
    role: Role
    consumer_id: str
    expires_unix_s: float | None
    shown: Mapping[str, object] = field(repr=False)

    @property
    def scope(self) -> Scope:
        """The consumers whose data the caller may read and change. An emitter has no scope; asking for it raises ValueError."""
        return EVERYONE if self.role is Role.ADMIN else OwnConsumer(self.consumer_id)


class Authenticator:
    """Turns an `authorization` header into a caller."""

    def __init__(self, ask: Ask[Caller], clock: Clock) -> None:
        """Take `ask`: given keys in clear, it returns the caller of each, or why it is refused."""
        self._keys = ApiKeyCache(ask, clock)

    async def caller(self, authorization: str) -> Caller:
        """Return the caller; raise `Failure` KEY_REQUIRED, KEY_INVALID or, if the registry cannot be reached, its failure."""
        key = bearer(authorization)
        if key is None:
            raise Failure(Reason.KEY_REQUIRED, "Send an API key as `Authorization: Bearer hkt_…`.")
        return await self._keys.get(key)
