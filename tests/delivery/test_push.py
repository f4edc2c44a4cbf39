"""One attempt of a sink that wants access tokens, and what may happen to its subscription meanwhile."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import orjson
import pytest

from services.delivery.credentials import OAuth2
from services.delivery.model import Delivery, Event, Health, Outcome, Subscription
from services.delivery.push import Pusher
from services.delivery.terms import Terms
from services.delivery.transport.protocol import WITHDRAWN, Answer, Request
from services.eventlog.record import Record
from services.runtime.clock import SystemClock
from tests.delivery.log_of_tests import cloud_event

TOKEN_URL, SINK = "https://tokens.example/", "https://consumer.example/hook"
REFUSED = Answer(Outcome.STATUS, 401, "the endpoint answered 401", b"", "")
DELIVERED = Answer(Outcome.DELIVERED, 200, "", b"", "")
EVENT_ID = f"evt_{1:032x}"
BEFORE = Subscription(
    "sub_1", "con_1", SINK, (), "", Health.ACTIVE, 1, Terms(sink_revision=1, credential=OAuth2(TOKEN_URL, "client", "secret", ""))
)
CHANGES = {
    "gone": None,
    "paused": replace(BEFORE, health=Health.PAUSED),
    "another sink": replace(BEFORE, sink=f"{SINK}/new", terms=replace(BEFORE.terms, sink_revision=2)),
    "another credential": replace(BEFORE, terms=replace(BEFORE.terms, credential=OAuth2(TOKEN_URL, "other", "secret", ""))),
}


@dataclass
class Post:
    """A transport whose requests are answered by hand, one after the other."""

    sent: list[tuple[Request, Callable[[Answer], None]]] = field(default_factory=list)
    withdrawn: list[str] = field(default_factory=list)

    def send(self, request: Request, done: Callable[[Answer], None]) -> None:
        """See `Transport.send`."""
        self.sent.append((request, done))

    def withdraw(self, subscription_id: str) -> None:
        """See `Transport.withdraw`."""
        self.withdrawn.append(subscription_id)

    def answer(self, answer: Answer) -> None:
        """Answer the request that was sent first."""
        _, done = self.sent.pop(0)
        done(answer)

    def give_token(self, value: str) -> None:
        """Answer the call for a token."""
        assert self.sent[0][0].url == TOKEN_URL
        body = orjson.dumps({"access_token": value, "token_type": "bearer", "expires_in": 3600})
        self.answer(Answer(Outcome.DELIVERED, 200, "", body, ""))


@dataclass
class Pushing:
    """An attempt, its subscription as it stands, and its answers."""

    post: Post = field(default_factory=Post)
    subscription: Subscription | None = BEFORE
    answers: list[Answer] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.pusher = Pusher(self.post, lambda _id: self.subscription, SystemClock(), "", lambda _id: None)

    def push(self) -> None:
        """Begin the attempt."""
        record = Record(0, 1, EVENT_ID, "a", "/shop", "", 0, cloud_event("1", "a").SerializeToString())
        delivery = Delivery(b"1" * 16, EVENT_ID, 0, 1, "a", 0, BEFORE.id, BEFORE.consumer_id, 1, Event(record))
        self.pusher.push(delivery, BEFORE, 0, self.answers.append)

    def refuse_token(self) -> None:
        """Have the sink answer 401 to the first token."""
        assert not self.pusher.may_push(BEFORE)
        self.post.give_token("one")
        self.push()
        self.post.answer(REFUSED)


@pytest.fixture
async def pushing() -> Pushing:
    return Pushing()


async def test_a_second_try_that_does_not_begin_leaves_the_first_answer(pushing: Pushing) -> None:
    pushing.refuse_token()
    pushing.post.give_token("two")
    pushing.post.answer(WITHDRAWN)

    assert pushing.answers == [REFUSED._replace(sent_secrets=("one",))]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("late", [True, False], ids=["before the token", "before the answer"])
async def test_a_second_try_is_made_for_what_the_first_was_alone(pushing: Pushing, change: str, *, late: bool) -> None:
    """Anything else is the next attempt's."""
    if late:
        pushing.refuse_token()
        pushing.subscription = CHANGES[change]
        pushing.post.give_token("two")
    else:
        assert not pushing.pusher.may_push(BEFORE)
        pushing.post.give_token("one")
        pushing.push()
        pushing.subscription = CHANGES[change]
        pushing.post.answer(REFUSED)

    assert pushing.post.sent == []
    assert pushing.answers == [REFUSED._replace(sent_secrets=("one",))]


async def test_what_waits_for_its_first_token_goes_with_it(pushing: Pushing) -> None:
    pushing.push()
    pushing.post.give_token("one")
    pushing.post.answer(DELIVERED)

    assert pushing.answers == [DELIVERED._replace(sent_secrets=("one",))]


@pytest.mark.parametrize("change", CHANGES)
async def test_what_waits_for_its_first_token_and_is_not_wanted_any_more_has_not_begun(pushing: Pushing, change: str) -> None:
    pushing.push()
    pushing.subscription = CHANGES[change]
    pushing.post.give_token("one")

    assert pushing.post.sent == []
    assert pushing.answers == [WITHDRAWN]
