"""API key cache: the registry's answers about API keys, each used for at most two seconds.

gateway/authenticate, ingest/emitter_authorization → [api_key_cache] ─gRPC─▶ registry

Law 1: an answer is used for at most `FRESH_S` from the moment of its question, so a revoked key stops working within two seconds. A key's
own end counts at once.
Law 2: single-flight: a question under way serves all callers that come within `FRESH_S` of it; later callers need a newer answer. It has
its own deadline, not the first caller's, and goes on if that caller gives up.
Law 3: a key with a wrong checksum is refused here; the registry is not asked about it.
Law 4: no key is stored in clear for longer than its question takes, and the number of answers is bounded. Refused keys have their own
share, so that guesses evict no valid key.
"""

import asyncio
import hashlib
import itertools
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from services.runtime.api_key import parse_key
from services.runtime.background import shared_task
from services.runtime.clock import Clock
from services.runtime.errors import Failure, Reason
from services.runtime.logs import logger

FRESH_S = 2.0
# From this age on, the use of a valid key renews its answer in the background. If the renewal ends before `FRESH_S`, no caller waits.
RENEW_S = 1.0
# How many keys one question may name.
KEYS_ASKED_MAX = 200
# How long after the answer to a question the next one is asked, unless it names `KEYS_ASKED_MAX` keys. A question costs much more than each
# of its keys, and without this pause a thousand guesses at once cost a third as many questions.
_PAUSE_S = 0.01
# How many valid keys are cached; the key unused for longest is forgotten first.
VALID_MAX = 10_000
# How many refused keys are cached.
REFUSED_MAX = 1_000


class ValidKey(Protocol):
    """What the registry says about a valid key."""

    @property
    def expires_unix_s(self) -> float | None:
        """When the key ends, in seconds since 1970; None if it has no end."""
        ...


_Valid = TypeVar("_Valid", bound=ValidKey)
_Outcome = TypeVar("_Outcome")
Ask = Callable[[Sequence[str]], Awaitable[Sequence[_Valid | Failure]]]
"""Asks about 1 to `KEYS_ASKED_MAX` keys in clear; returns for each, in order, the valid key, or why it is refused. Raises `Failure` if
the registry cannot be asked."""


@dataclass(frozen=True, slots=True)
class _Answer(Generic[_Outcome]):
    asked_at: float
    outcome: _Outcome


@dataclass(frozen=True, slots=True)
class _Renewal(Generic[_Valid]):
    """A question about one valid key."""

    asked_at: float
    outcome: asyncio.Task[_Valid | Failure]


@dataclass(frozen=True, slots=True)
class _Question(Generic[_Valid]):
    """A key in clear that a question names, and the future that all callers with this key wait for."""

    key: str
    outcome: asyncio.Future[_Valid | Failure] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class ApiKeyCache(Generic[_Valid]):
    """Answers about API keys, by the SHA-256 digests of the keys.

    A valid key in use is renewed by its own question, before its answer is too old. All other keys share one question at a
    time, with a pause after each, so that a flood of invalid keys does not increase the rate of questions.
    """

    def __init__(self, ask: Ask[_Valid], clock: Clock, *, valid_max: int = VALID_MAX) -> None:
        self._ask = ask
        self._clock = clock
        self._valid_max = valid_max
        self._valid: OrderedDict[bytes, _Answer[_Valid]] = OrderedDict()
        self._refused: OrderedDict[bytes, _Answer[Failure]] = OrderedDict()
        self._renewing: dict[bytes, _Renewal[_Valid]] = {}
        self._waiting: dict[bytes, _Question[_Valid]] = {}
        self._asked: dict[bytes, _Question[_Valid]] = {}
        """The keys of the question under way, which was asked at `_asked_at`."""
        self._asked_at = 0.0
        self._asking: asyncio.Task[None] | None = None

    def knows(self, key: str) -> bool:
        """Return whether a fresh answer says that a key is valid."""
        answer = self._valid.get(_digest(key))
        return answer is not None and self._is_fresh(answer.asked_at) and not self._has_ended(answer.outcome)

    async def get(self, key: str) -> _Valid:
        """Return what the registry says about a key. Raises `Failure`: KEY_INVALID, any reason of the registry, or that it is away."""
        digest = _digest(key)
        valid = self._valid.get(digest)
        if valid is not None and not self._has_ended(valid.outcome):
            self._valid.move_to_end(digest)
            if self._age_s(valid.asked_at) < RENEW_S:
                return valid.outcome
            renewal = self._renew(digest, key)
            if self._is_fresh(valid.asked_at):
                return valid.outcome
            if self._is_fresh(renewal.asked_at):
                return _valid_or_raise(await asyncio.shield(renewal.outcome))
        refused = self._refused.get(digest)
        if refused is not None and self._is_fresh(refused.asked_at):
            return _valid_or_raise(refused.outcome)
        if parse_key(key) is None:
            raise Failure(Reason.KEY_INVALID, "This is not a valid API key: it is incomplete or mistyped; send the whole key.")
        return _valid_or_raise(await asyncio.shield(self._outcome_of(digest, key)))

    def _age_s(self, asked_at: float) -> float:
        return self._clock.boottime() - asked_at

    def _is_fresh(self, asked_at: float) -> bool:
        return self._age_s(asked_at) < FRESH_S

    def _has_ended(self, valid: _Valid) -> bool:
        return valid.expires_unix_s is not None and self._clock.now() >= valid.expires_unix_s

    def _renew(self, digest: bytes, key: str) -> _Renewal[_Valid]:
        renewal = self._renewing.get(digest)
        if renewal is None:
            outcome = shared_task(self._ask_about_one(digest, key))
            renewal = self._renewing[digest] = _Renewal(self._clock.boottime(), outcome)
            outcome.add_done_callback(lambda _done: self._renewing.pop(digest, None))
        return renewal

    async def _ask_about_one(self, digest: bytes, key: str) -> _Valid | Failure:
        try:
            (outcome,) = await self._ask_and_keep({digest: key})
        except Failure as failure:
            return failure
        except Exception:  # noqa: BLE001 - a bug, logged with its traceback; perhaps no caller waits for this outcome
            logger().exception("key_check.failed")
            return _unavailable()
        return outcome

    def _outcome_of(self, digest: bytes, key: str) -> asyncio.Future[_Valid | Failure]:
        asked = self._asked.get(digest) if self._is_fresh(self._asked_at) else None
        question = asked or self._waiting.get(digest)
        if question is None:
            question = self._waiting[digest] = _Question(key)
            if self._asking is None:
                self._asking = shared_task(self._ask_about_waiting())
        return question.outcome

    async def _ask_about_waiting(self) -> None:
        try:
            while self._waiting:
                digests = list(itertools.islice(self._waiting, KEYS_ASKED_MAX))
                self._asked = {digest: self._waiting.pop(digest) for digest in digests}
                self._asked_at = self._clock.boottime()
                try:
                    outcomes = await self._ask_and_keep({digest: question.key for digest, question in self._asked.items()})
                except Failure as failure:
                    # Fail the keys of the next question too: otherwise their callers would wait for another deadline.
                    self._fail_all(failure)
                    return
                for question, outcome in zip(self._asked.values(), outcomes, strict=True):
                    _tell(question, outcome)
                self._asked = {}
                if len(self._waiting) < KEYS_ASKED_MAX:
                    await asyncio.sleep(_PAUSE_S)
        except Exception:  # noqa: BLE001 - a bug, logged with its traceback; the callers get the failure below
            logger().exception("key_check.failed")
        finally:
            self._fail_all(_unavailable())
            self._asking = None

    def _fail_all(self, failure: Failure) -> None:
        """Give a failure to all callers that still wait; they may wait for the question under way and for the next one about one key."""
        for question in (*self._asked.values(), *self._waiting.values()):
            _tell(question, failure)
        self._asked, self._waiting = {}, {}

    async def _ask_and_keep(self, keys: dict[bytes, str]) -> Sequence[_Valid | Failure]:
        asked_at = self._clock.boottime()
        outcomes = await self._ask(list(keys.values()))
        for digest, outcome in zip(keys, outcomes, strict=True):
            self._valid.pop(digest, None)
            self._refused.pop(digest, None)
            if isinstance(outcome, Failure):
                self._refused[digest] = _Answer(asked_at, outcome)
            else:
                self._valid[digest] = _Answer(asked_at, outcome)
        while len(self._valid) > self._valid_max:
            self._valid.popitem(last=False)
        while len(self._refused) > REFUSED_MAX:
            self._refused.popitem(last=False)
        return outcomes


def _tell(question: _Question[_Valid], outcome: _Valid | Failure) -> None:
    if not question.outcome.done():
        question.outcome.set_result(outcome)


def _unavailable() -> Failure:
    return Failure(Reason.UNAVAILABLE, "The registry of keys is unavailable; try again.", retry_after_s=1.0)


def _digest(key: str) -> bytes:
    # A header may hold half of a surrogate pair, which `encode` refuses by default.
    return hashlib.sha256(key.encode(errors="surrogatepass")).digest()


def _valid_or_raise(outcome: _Valid | Failure) -> _Valid:
    """Return a valid key. Raise a refusal as a new exception, since an exception collects tracebacks."""
    if isinstance(outcome, Failure):
        raise Failure(outcome.reason, outcome.message, retry_after_s=outcome.retry_after_s)
    return outcome
