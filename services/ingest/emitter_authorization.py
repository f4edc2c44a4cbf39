"""Emitter authorization: which keys may publish and which event types require an audience; answers are cached for at most two seconds.

server, publish → [emitter_authorization] → registry_client ─gRPC─▶ registry

The registry (the subscription service) answers both questions. If an answer is too old, ingest asks again. If the registry
cannot be reached, ingest refuses events for the time being, since the key may have been revoked.

Law 1: an answer is cached for at most `FRESH_S` from the moment of its question.
Law 2: single-flight: a question under way serves all callers that need its answer. It has its own deadline, not the first caller's.
Law 3: one call asks about all unknown types of a message. The call also renews types that were known before, so that the number
of calls does not grow with the number of types.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from services.ingest.registry_client import RegistryClient
from services.runtime.api_key_cache import FRESH_S, ApiKeyCache
from services.runtime.background import shared_task
from services.runtime.clock import Clock
from services.runtime.errors import Failure, Reason
from services.runtime.rpc.access import bearer

# How many types one call may ask for.
TYPES_ASKED_MAX = 1000
# After this many turns (at least a minute), forget the types that no emitter has published in the meantime.
TURNS_REMEMBERED = 30
# If the number of types reaches this figure, all types are forgotten.
TYPES_KEPT_MAX = 10_000


class EmitterAuthorizer:
    """Asks the subscription service about keys and event types, and caches its answers."""

    def __init__(self, registry: RegistryClient, clock: Clock) -> None:
        self._keys = ApiKeyCache(registry.emitters, clock)
        self._types = _AudienceRequirements(registry.audience_required, clock)

    def is_known(self, authorization: str) -> bool:
        """Return whether a fresh answer lets this key publish."""
        key = bearer(authorization)
        return key is not None and self._keys.knows(key)

    async def authorize(self, authorization: str) -> None:
        """Check the value of `authorization`; return if its key may publish.

        Raises `Failure` KEY_REQUIRED, KEY_INVALID, ROLE_FORBIDDEN, or UNAVAILABLE if the registry cannot be asked.
        """
        key = bearer(authorization)
        if key is None:
            raise Failure(Reason.KEY_REQUIRED, "Send an API key of the role emitter as `authorization: Bearer hkt_…`.")
        await self._keys.get(key)

    async def audience_required(self, types: AbstractSet[str]) -> AbstractSet[str]:
        """Return those of a message's types whose events must name an audience. `types` holds at most `TYPES_ASKED_MAX` names.

        A type that is not in the catalogue requires no audience. If all answers are known and fresh, the call does not wait.
        Raises `Failure` UNAVAILABLE.
        """
        return await self._types.requiring(types)


@dataclass(slots=True)
class _Turn:
    """The questions about types within `FRESH_S`, and their answers. A message uses the turn in which it came in, however long it waits."""

    began_at: float
    due: list[str]
    """Names that are remembered from earlier turns and that this turn has not asked about yet."""
    answered: set[str] = field(default_factory=set)
    requiring: set[str] = field(default_factory=set)
    """The answered names whose events must name an audience."""
    asking: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    """The questions under way, by name."""


class _AudienceRequirements:
    """Cached answers about types. All answers of a turn become too old at once, and the next turn begins with no answers.

    If each answer had its own age, answers would expire one by one and would cost one call each.
    """

    def __init__(self, ask: Callable[[Collection[str]], Awaitable[Iterable[str]]], clock: Clock) -> None:
        self._ask = ask
        self._clock = clock
        self._turn = _Turn(clock.boottime(), [])
        self._turns = 0
        self._published: set[str] = set()
        """The types that emitters have published since types were last forgotten."""

    async def requiring(self, names: AbstractSet[str]) -> AbstractSet[str]:
        turn = self._turn
        if self._clock.boottime() - turn.began_at >= FRESH_S or len(turn.answered) + len(turn.asking) >= TYPES_KEPT_MAX:
            turn = self._turn = self._next_turn()
        self._published |= names
        missing = names - turn.answered
        if missing:
            self._ask_for({name for name in missing if name not in turn.asking}, turn)
            for asking in {turn.asking[name] for name in missing}:
                await asyncio.shield(asking)
        return names & turn.requiring

    def _next_turn(self) -> _Turn:
        """Begin a turn that remembers the names of the turn before; forget them if there are too many, which would soon fill this turn."""
        self._turns += 1
        remembered = self._turn.answered
        if self._turns % TURNS_REMEMBERED == 0:
            remembered, self._published = self._published, set()
        if max(len(remembered), len(self._published)) >= TYPES_KEPT_MAX:
            remembered, self._published = set(), set()
        return _Turn(self._clock.boottime(), list(remembered))

    def _ask_for(self, names: set[str], turn: _Turn) -> None:
        """Ask about names that no question under way covers, and fill the call up with names that are due. No names: no call."""
        if not names:
            return
        while turn.due and len(names) < TYPES_ASKED_MAX:
            name = turn.due.pop()
            if name not in turn.answered and name not in turn.asking:
                names.add(name)
        turn.asking.update(dict.fromkeys(names, shared_task(self._ask_and_keep(names, turn))))

    async def _ask_and_keep(self, names: set[str], turn: _Turn) -> None:
        try:
            turn.requiring.update(await self._ask(names))
            turn.answered |= names
        finally:
            for name in names:
                del turn.asking[name]
