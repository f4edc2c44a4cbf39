"""Sender: one attempt at a sink that wants access tokens, and changes of its subscription during the attempt."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import orjson
import pytest

from services.delivery.model import Delivery, Event, SubscriptionStatus
from services.delivery.request.access_token_state import Token
from services.delivery.request.credentials import OAuth2
from services.delivery.request.oauth2_client import OAuth2Client
from services.delivery.request.request_settings import RequestSettings, Subscription
from services.delivery.request.sender import WebhookSender
from services.delivery.transport.protocol import WITHDRAWN, Answer, Outcome, Request
from services.eventlog.record import Record
from services.runtime.clock import SystemClock
from services.runtime.fair_semaphore import Share
from tests.support.events import cloud_event

TOKEN_URL, SINK = "https://tokens.example/", "https://consumer.example/hook"
REFUSED = Answer(Outcome.STATUS, 401, "the server answered 401", b"", "")
DELIVERED = Answer(Outcome.DELIVERED, 200, "", b"", "")
EVENT_ID = f"evt_{1:032x}"
EVENT = cloud_event("1", "a").SerializeToString()
BEFORE = Subscription(
    "sub_1",
    "con_1",
    SINK,
    (),
    "",
    SubscriptionStatus.ACTIVE,
    1,
    RequestSettings(sink_revision=1, credential=OAuth2(TOKEN_URL, "client", "secret", "")),
)
CHANGES = {
    "gone": None,
    "paused": replace(BEFORE, status=SubscriptionStatus.PAUSED),
    "another sink": replace(BEFORE, sink=f"{SINK}/new", settings=replace(BEFORE.settings, sink_revision=2)),
    "another credential": replace(BEFORE, settings=replace(BEFORE.settings, credential=OAuth2(TOKEN_URL, "other", "secret", ""))),
}


@dataclass
class Post:
    """A transport whose requests the test answers by hand, one after the other."""

    sent: list[tuple[Request, Callable[[Answer], None]]] = field(default_factory=list)
    withdrawn: list[str] = field(default_factory=list)

    def send(self, request: Request, done: Callable[[Answer], None]) -> None:
        """See `Transport.send`."""
        self.sent.append((request, done))

    def withdraw(self, subscription_id: str) -> None:
        """See `Transport.withdraw`."""
        self.withdrawn.append(subscription_id)

    def withdraw_all(self, owner: str = "") -> None:
        """See `Transport.withdraw_all`."""
        self.withdrawn.append(owner)

    def answer(self, answer: Answer) -> None:
        """Answer the oldest request."""
        _, done = self.sent.pop(0)
        done(answer)

    def give_token(self, value: str) -> None:
        """Answer the call for a token."""
        assert self.sent[0][0].url == TOKEN_URL
        body = orjson.dumps({"access_token": value, "token_type": "bearer", "expires_in": 3600})
        self.answer(Answer(Outcome.DELIVERED, 200, "", body, ""))


@dataclass
class Sending:
    """An attempt, its subscription as it now is, and the attempt's answers."""

    post: Post = field(default_factory=Post)
    subscription: Subscription | None = BEFORE
    answers: list[Answer] = field(default_factory=list)
    ready: list[str] = field(default_factory=list)
    """The subscriptions that the sender has called ready."""

    def __post_init__(self) -> None:
        self.sender = WebhookSender(self.post, self._active, SystemClock(), "", Share(8, 8), lambda: True)

    def _active(self, subscription_id: str) -> Subscription | None:
        """Return the subscription if it is there and active."""
        assert subscription_id == BEFORE.id
        return self.subscription if self.subscription is not None and self.subscription.status is SubscriptionStatus.ACTIVE else None

    def send(self, event: bytes = EVENT) -> None:
        """Start the attempt."""
        record = Record(0, 0, 1, EVENT_ID, "a", "/shop", "", 0, event)
        delivery = Delivery(b"1" * 16, EVENT_ID, 0, 0, 1, "a", 0, BEFORE.id, BEFORE.consumer_id, 1, Event(record))
        self.sender.send(delivery, BEFORE, 0, self.answers.append)

    def refuse_token(self) -> None:
        """Let the sink answer 401 to the first token."""
        assert not self.sender.may_send(BEFORE, self.ready.append)
        self.post.give_token("one")
        self.send()
        self.post.answer(REFUSED)


@pytest.fixture
async def sending() -> Sending:
    return Sending()


async def test_who_waits_for_a_token_is_called_once_when_its_call_has_ended(sending: Sending) -> None:
    """A subscription that was forgotten meanwhile is not called."""
    assert not sending.sender.may_send(BEFORE, sending.ready.append)
    assert not sending.sender.may_send(BEFORE, sending.ready.append)
    sending.post.give_token("one")
    assert sending.ready == [BEFORE.id]
    assert sending.sender.may_send(BEFORE, sending.ready.append)

    other = CHANGES["another credential"]
    assert other is not None
    assert not sending.sender.may_send(other, sending.ready.append)
    sending.sender.forget(other.id)
    sending.post.give_token("two")
    assert sending.ready == [BEFORE.id]


async def test_a_second_try_that_does_not_begin_leaves_the_first_answer(sending: Sending) -> None:
    sending.refuse_token()
    sending.post.give_token("two")
    sending.post.answer(WITHDRAWN)

    assert sending.answers == [REFUSED._replace(sent_secrets=("one",))]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("late", [True, False], ids=["before the token", "before the answer"])
async def test_a_second_try_is_made_for_what_the_first_was_alone(sending: Sending, change: str, *, late: bool) -> None:
    """If anything has changed, the second try is left to the next attempt."""
    if late:
        sending.refuse_token()
        sending.subscription = CHANGES[change]
        sending.post.give_token("two")
    else:
        assert not sending.sender.may_send(BEFORE, sending.ready.append)
        sending.post.give_token("one")
        sending.send()
        sending.subscription = CHANGES[change]
        sending.post.answer(REFUSED)

    assert sending.post.sent == []
    assert sending.answers == [REFUSED._replace(sent_secrets=("one",))]


async def test_what_waits_for_its_first_token_goes_with_it(sending: Sending) -> None:
    sending.send()
    sending.post.give_token("one")
    sending.post.answer(DELIVERED)

    assert sending.answers == [DELIVERED._replace(sent_secrets=("one",))]


async def test_what_waits_for_its_first_token_and_cannot_be_encoded_is_answered(sending: Sending) -> None:
    """The token comes to the transport's own loop, which an error would end."""
    sending.send(b"not a CloudEvent")
    sending.post.give_token("one")

    assert sending.post.sent == []
    (answer,) = sending.answers
    assert (answer.outcome, answer.begun) == (Outcome.PROTOCOL, True)
    assert "could not be encoded" in answer.error


@pytest.mark.parametrize("change", CHANGES)
async def test_what_waits_for_its_first_token_and_is_not_wanted_any_more_has_not_begun(sending: Sending, change: str) -> None:
    sending.send()
    sending.subscription = CHANGES[change]
    sending.post.give_token("one")

    assert sending.post.sent == []
    assert sending.answers == [WITHDRAWN]


async def test_a_token_that_does_not_come_holds_no_attempt_up(sending: Sending, monkeypatch: pytest.MonkeyPatch) -> None:
    """The attempt ends with the sink's answer; the token may serve later attempts."""
    monkeypatch.setattr("services.delivery.request.oauth2_client._WAITED_FOR_S", 0.05)
    sending.refuse_token()
    assert sending.answers == []
    async with asyncio.timeout(10):
        while not sending.answers:  # noqa: ASYNC110 - a timer's
            await asyncio.sleep(0.01)
    assert sending.answers == [REFUSED._replace(sent_secrets=("one",))]
    assert not sending.sender.may_send(BEFORE, sending.ready.append)
    sending.post.give_token("two")
    assert sending.sender.may_send(BEFORE, sending.ready.append)
    assert len(sending.answers) == 1


async def test_a_call_that_waits_for_its_turn_ends_with_its_subscription() -> None:
    """The attempts that wait for the call end too. A call that was already sent goes on, and its token serves no subscription."""
    post, arrived = Post(), list[str]()
    tokens = OAuth2Client(post, SystemClock(), arrived.append, Share(1, 1))
    first, second = OAuth2(TOKEN_URL, "one", "secret", ""), OAuth2(TOKEN_URL, "two", "secret", "")
    told: list[str] = []
    assert tokens.get("sub_1", "con_1", first) is None
    assert tokens.get("sub_2", "con_1", second) is None
    tokens.when_fetched("sub_2", "con_1", second, lambda: told.append("sub_2"))
    assert len(post.sent) == 1
    tokens.forget("sub_2")
    tokens.forget("sub_1")
    await asyncio.sleep(0)
    assert told == ["sub_2"]
    post.give_token("late")
    assert post.sent == []
    assert tokens.get("sub_1", "con_1", first) is None
    post.give_token("new")
    assert arrived == ["sub_1"]


async def test_subscriptions_of_one_consumer_share_the_tokens_of_a_credential_and_no_other_consumer_does() -> None:
    post, arrived = Post(), list[str]()
    tokens, same = OAuth2Client(post, SystemClock(), arrived.append, Share(8, 8)), OAuth2(TOKEN_URL, "client", "secret", "")
    for number in range(50):
        assert tokens.get(f"sub_{number:02}", "con_1", replace(same)) is None
    assert tokens.get("sub_other", "con_2", replace(same)) is None
    assert len(post.sent) == 2
    post.give_token("one")
    assert arrived == [f"sub_{number:02}" for number in range(50)]
    assert isinstance(token := tokens.get("sub_new", "con_1", same), Token)
    assert token.value == "one"
    assert tokens.get("sub_other", "con_2", same) is None
    post.give_token("two")
    assert (post.sent, arrived[-1]) == ([], "sub_other")
