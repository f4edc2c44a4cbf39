"""Authenticate: finds the caller of an API key in the registry, and caches the answer for a moment.

client → pipeline → [authenticate] → registry

Law 1: an answer is used for at most 2 s after the registry was asked, so a revoked key stops working within 2 s.
Law 2: concurrent calls with one key share one lookup (single-flight). The refusal KEY_INVALID is cached as well.
Law 3: no key is stored in clear, and the size of the cache is bounded.
"""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum

from services.runtime.api_key import parse_key
from services.runtime.clock import Clock
from services.runtime.consumer_scope import EVERYONE, OwnConsumer, Scope
from services.runtime.errors import Failure, Reason
from services.runtime.rpc.access import bearer

REMEMBERED_S = 2.0
REMEMBERED_MAX = 10_000


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


@dataclass(slots=True)
class _Question:
    """A lookup in flight; `outcome` stays None if the call that asked was cancelled."""

    done: asyncio.Event = field(default_factory=asyncio.Event)
    outcome: Caller | Failure | None = None


@dataclass(frozen=True, slots=True)
class _Memory:
    outcome: Caller | Failure
    until_s: float


class Authenticator:
    """Turns an `authorization` header into a caller."""

    def __init__(self, ask: Callable[[str], Awaitable[Caller]], clock: Clock, *, remembered_max: int = REMEMBERED_MAX) -> None:
        """Take `ask`: given a key in clear, it returns the caller or raises `Failure`."""
        self._ask = ask
        self._clock = clock
        self._remembered_max = remembered_max
        self._memories: OrderedDict[bytes, _Memory] = OrderedDict()
        self._questions: dict[bytes, _Question] = {}

    async def caller(self, authorization: str) -> Caller:
        """Return the caller; raise `Failure` KEY_REQUIRED, KEY_INVALID or, if the registry cannot be reached, its failure."""
        key = bearer(authorization)
        if key is None:
            raise Failure(Reason.KEY_REQUIRED, "Send an API key as `Authorization: Bearer hkt_…`.")
        if parse_key(key) is None:
            # The checksum finds typing errors, and most guesses, without a call to the registry.
            raise Failure(Reason.KEY_INVALID, "This is not an API key: it is incomplete, or has a typing error.")
        digest = hashlib.sha256(key.encode()).digest()
        outcome = self._remembered(digest)
        while outcome is None:
            outcome = await self._asked(digest, key)
        if isinstance(outcome, Failure):
            # Each call raises a new exception, since an exception collects tracebacks.
            raise Failure(outcome.reason, outcome.message, retry_after_s=outcome.retry_after_s)
        return outcome

    def _remembered(self, digest: bytes) -> Caller | Failure | None:
        memory = self._memories.get(digest)
        if memory is None:
            return None
        if self._clock.boottime() >= memory.until_s or self._has_expired(memory.outcome):
            del self._memories[digest]
            return None
        self._memories.move_to_end(digest)
        return memory.outcome

    def _has_expired(self, outcome: Caller | Failure) -> bool:
        return isinstance(outcome, Caller) and outcome.expires_unix_s is not None and self._clock.now() >= outcome.expires_unix_s

    async def _asked(self, digest: bytes, key: str) -> Caller | Failure | None:
        question = self._questions.get(digest)
        if question is not None:
            await question.done.wait()
            return question.outcome
        question = self._questions[digest] = _Question()
        asked_s = self._clock.boottime()
        try:
            question.outcome = await self._ask(key)
        except Failure as failure:
            question.outcome = failure
        finally:
            del self._questions[digest]
            question.done.set()
        self._remember(digest, question.outcome, asked_s + REMEMBERED_S)
        return question.outcome

    def _remember(self, digest: bytes, outcome: Caller | Failure, until_s: float) -> None:
        if isinstance(outcome, Failure) and outcome.reason is not Reason.KEY_INVALID:
            return
        self._memories[digest] = _Memory(outcome, until_s)
        self._memories.move_to_end(digest)
        if len(self._memories) > self._remembered_max:
            self._memories.popitem(last=False)
