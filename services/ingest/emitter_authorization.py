"""Emitter authorization: which keys may publish and which event types require an audience; answers are cached for at most two seconds.

server, publish → [emitter_authorization] ─gRPC─▶ registry

The registry (the subscription service) answers both questions. If an answer is too old, ingest asks again. If the registry
cannot be reached, ingest refuses events for the time being, since the key may have been revoked.

Law 1: a key with a wrong checksum is refused here; the registry is not asked about it.
Law 2: an answer is cached for at most `FRESH_S` from the moment of its question.
Law 3: single-flight: a question under way serves all callers that need its answer. It has its own deadline, not the first caller's.
Law 4: one call asks about all unknown types of a message. The call also renews types that were known before, so that the number
of calls does not grow with the number of types.
"""

import asyncio
import contextvars
import itertools
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any, TypeVar

import grpc
from hooktide.subscription.v1 import access_pb2, access_pb2_grpc, catalogue_pb2, catalogue_pb2_grpc

from services.runtime.api_key import parse_key
from services.runtime.clock import Clock
from services.runtime.errors import Failure, Reason
from services.runtime.rpc.access import ServiceToken, bearer
from services.runtime.rpc.channel_and_server import service_metadata

FRESH_S = 2.0
# From this age on, the use of a valid key renews its answer in the background. If the renewal ends before `FRESH_S`, no caller waits.
RENEW_S = 1.0
# How many keys one call may ask for.
KEYS_ASKED_MAX = 200
# How many types one call may ask for.
TYPES_ASKED_MAX = 1000
# After this many turns (at least a minute), forget the types that no emitter has published in the meantime.
TURNS_REMEMBERED = 30
# How many valid keys are cached. If the number of types reaches this figure, all types are forgotten.
KEPT_MAX = 10_000
# How many invalid keys are cached. They have their own cache, so that guesses evict no valid key.
WRONG_KEPT_MAX = 1_000

RETRIED = (
    "hooktide.subscription.v1.AccessService/AuthenticateKeys",
    "hooktide.subscription.v1.CatalogueService/FindAudienceRequired",
)

_Answer = TypeVar("_Answer")


class Registry:
    """Asks the subscription service about keys and event types, and caches its answers."""

    def __init__(self, channel: grpc.aio.Channel, service_token: ServiceToken, clock: Clock) -> None:
        self._metadata = service_metadata(service_token)
        self._access = access_pb2_grpc.AccessServiceStub(channel)
        self._catalogue = catalogue_pb2_grpc.CatalogueServiceStub(channel)
        self._keys = _Keys(self._ask_keys, clock)
        self._types = _Types(self._ask_types, clock)

    def is_known(self, authorization: str) -> bool:
        """Return whether a fresh answer lets this key publish."""
        key = bearer(authorization)
        return key is not None and self._keys.is_right(key)

    async def authorize(self, authorization: str) -> None:
        """Check the value of `authorization`; return if its key may publish.

        Raises `Failure` KEY_REQUIRED, KEY_INVALID, ROLE_FORBIDDEN, or UNAVAILABLE if the registry cannot be asked.
        """
        key = bearer(authorization)
        if key is None:
            raise Failure(Reason.KEY_REQUIRED, "Send an API key of the role emitter as `authorization: Bearer hkt_…`.")
        failure = await self._keys.get(key)
        if failure is not None:
            raise Failure(failure.reason, failure.message)

    async def audience_required(self, types: AbstractSet[str]) -> AbstractSet[str]:
        """Return those of a message's types whose events must name an audience. `types` holds at most `TYPES_ASKED_MAX` names.

        A type that is not in the catalogue requires no audience. If all answers are known and fresh, the call does not wait.
        Raises `Failure` UNAVAILABLE.
        """
        return await self._types.demanding(types)

    async def _ask_keys(self, keys: Sequence[str]) -> Sequence[Failure | None]:
        try:
            answer = await self._access.AuthenticateKeys(access_pb2.AuthenticateKeysRequest(keys=keys), metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            raise _away() from error
        return [_judged(result) for result in answer.results]

    async def _ask_types(self, names: Collection[str]) -> Iterable[str]:
        request = catalogue_pb2.FindAudienceRequiredRequest(names=names)
        try:
            answer = await self._catalogue.FindAudienceRequired(request, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            raise _away() from error
        return answer.names


def _judged(result: access_pb2.AuthenticatedKey) -> Failure | None:
    """Return why a key may not publish; None if it may."""
    if not result.HasField("key"):
        return Failure(Reason.KEY_INVALID, "This API key is unknown, expired or revoked; send another.")
    if result.key.role != access_pb2.ROLE_EMITTER:
        return Failure(Reason.ROLE_FORBIDDEN, "Publishing needs a key of the role emitter; this key has another role.")
    return None


def _away() -> Failure:
    """Return the failure for a registry that gives no answer. It hides the cause, which does not concern the emitter."""
    return Failure(Reason.UNAVAILABLE, "The registry of keys and event types cannot be asked; send the events again.", retry_after_s=1.0)


class _Keys:
    """Cached answers about keys: None if a key may publish, else why not. No answer is used for longer than `FRESH_S`.

    A valid key in use is renewed by its own question, before its answer is too old. All other keys share one question at a
    time, so that a flood of invalid keys does not increase the rate of questions.
    """

    def __init__(self, ask: Callable[[Sequence[str]], Awaitable[Sequence[Failure | None]]], clock: Clock) -> None:
        self._ask = ask
        self._clock = clock
        self._right: dict[str, float] = {}
        """For each valid key, when the registry was asked about it."""
        self._wrong: dict[str, tuple[float, Failure]] = {}
        self._renewing: dict[str, asyncio.Task[Failure | None]] = {}
        self._new: dict[str, asyncio.Future[Failure | None]] = {}
        self._asked: dict[str, asyncio.Future[Failure | None]] = {}
        """The keys of the question under way."""
        self._asking: asyncio.Task[None] | None = None

    def is_right(self, key: str) -> bool:
        asked_at = self._right.get(key)
        return asked_at is not None and self._clock.boottime() - asked_at < FRESH_S

    async def get(self, key: str) -> Failure | None:
        asked_at = self._right.get(key)
        if asked_at is not None:
            age_s = self._clock.boottime() - asked_at
            if age_s < RENEW_S:
                return None
            renewing = self._renew(key)
            return None if age_s < FRESH_S else await asyncio.shield(renewing)
        wrong = self._wrong.get(key)
        if wrong is not None and self._clock.boottime() - wrong[0] < FRESH_S:
            return wrong[1]
        if parse_key(key) is None:
            return Failure(Reason.KEY_INVALID, "This is not an API key: it is incomplete, or has a typing error.")
        return await asyncio.shield(self._answer_about(key))

    def _renew(self, key: str) -> asyncio.Task[Failure | None]:
        renewing = self._renewing.get(key)
        if renewing is None:
            renewing = self._renewing[key] = _apart(self._ask_and_keep_one(key))
            renewing.add_done_callback(lambda _done: self._renewing.pop(key, None))
        return renewing

    def _answer_about(self, key: str) -> asyncio.Future[Failure | None]:
        answer = self._asked.get(key) or self._new.get(key)
        if answer is None:
            answer = self._new[key] = asyncio.get_running_loop().create_future()
            if self._asking is None:
                self._asking = _apart(self._ask_about_new())
        return answer

    async def _ask_about_new(self) -> None:
        try:
            while self._new:
                keys = list(itertools.islice(self._new, KEYS_ASKED_MAX))
                self._asked = {key: self._new.pop(key) for key in keys}
                try:
                    answers = await self._ask_and_keep(keys)
                except Failure as failure:
                    # Fail the keys of the next question too: otherwise their callers would wait for another deadline.
                    self._asked |= self._new
                    self._new = {}
                    answers = [failure] * len(self._asked)
                for waiting, answer in zip(self._asked.values(), answers, strict=True):
                    if not waiting.done():
                        waiting.set_result(answer)
        finally:
            for waiting in (*self._asked.values(), *self._new.values()):
                if not waiting.done():
                    waiting.set_result(_away())
            self._asked, self._new, self._asking = {}, {}, None

    async def _ask_and_keep_one(self, key: str) -> Failure | None:
        (answer,) = await self._ask_and_keep([key])
        return answer

    async def _ask_and_keep(self, keys: Sequence[str]) -> Sequence[Failure | None]:
        asked_at = self._clock.boottime()
        answers = await self._ask(keys)
        for key, answer in zip(keys, answers, strict=True):
            self._right.pop(key, None)
            self._wrong.pop(key, None)
            if answer is None:
                _keep(self._right, key, asked_at, KEPT_MAX)
            else:
                _keep(self._wrong, key, (asked_at, answer), WRONG_KEPT_MAX)
        return answers


def _keep(kept: dict[str, _Answer], key: str, answer: _Answer, kept_max: int) -> None:
    """Cache an answer; if the cache is full, evict the oldest answer."""
    while len(kept) >= kept_max:
        kept.pop(next(iter(kept)))
    kept[key] = answer


@dataclass(slots=True)
class _Turn:
    """The questions about types within `FRESH_S`, and their answers. A message uses the turn in which it came in, however long it waits."""

    began_at: float
    due: list[str]
    """Names that are remembered from earlier turns and that this turn has not asked about yet."""
    answered: set[str] = field(default_factory=set)
    demanding: set[str] = field(default_factory=set)
    """The answered names whose events must name an audience."""
    asking: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    """The questions under way, by name."""


class _Types:
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

    async def demanding(self, names: AbstractSet[str]) -> AbstractSet[str]:
        turn = self._turn
        if self._clock.boottime() - turn.began_at >= FRESH_S or len(turn.answered) + len(turn.asking) >= KEPT_MAX:
            turn = self._turn = self._next_turn()
        self._published |= names
        missing = names - turn.answered
        if missing:
            self._ask_for({name for name in missing if name not in turn.asking}, turn)
            for asking in {turn.asking[name] for name in missing}:
                await asyncio.shield(asking)
        return names & turn.demanding

    def _next_turn(self) -> _Turn:
        """Begin a turn that remembers the names of the turn before; forget them if there are too many, which would soon fill this turn."""
        self._turns += 1
        remembered = self._turn.answered
        if self._turns % TURNS_REMEMBERED == 0:
            remembered, self._published = self._published, set()
        if max(len(remembered), len(self._published)) >= KEPT_MAX:
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
        turn.asking.update(dict.fromkeys(names, _apart(self._ask_and_keep(names, turn))))

    async def _ask_and_keep(self, names: set[str], turn: _Turn) -> None:
        try:
            turn.demanding.update(await self._ask(names))
            turn.answered |= names
        finally:
            for name in names:
                del turn.asking[name]


def _apart(question: Coroutine[Any, Any, _Answer]) -> asyncio.Task[_Answer]:
    """Ask in a new context, so that the first caller's deadline does not apply to the other callers that wait for the answer."""
    asking = asyncio.get_running_loop().create_task(question, context=contextvars.Context())
    asking.add_done_callback(_heard)
    return asking


def _heard(asking: asyncio.Task[Any]) -> None:
    """Mark a question's exception as retrieved: its callers receive it, so that asyncio need not report it."""
    if not asking.cancelled():
        asking.exception()
