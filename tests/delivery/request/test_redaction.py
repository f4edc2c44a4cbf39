"""Redaction: secrets that an endpoint repeats are not stored; tested alone, and end to end with endpoints that show all they got."""

import base64
import html
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from urllib.parse import quote, quote_plus

import pytest
from aiohttp import web
from hooktide.subscription.v1 import subscription_pb2 as pb
from hypothesis import given
from hypothesis import strategies as st

from services.delivery.request.redaction import MARK, redacted, secrets_of
from tests.delivery.request.test_oauth2_client import authority
from tests.delivery.system import State, System
from tests.support.events import cloud_event

SECRET = "c4n/ary+\"pass<word>&ü'"
SHOWN = {
    "as it is": SECRET,
    "as JSON": json.dumps(SECRET),
    "as JSON in UTF-8": json.dumps(SECRET, ensure_ascii=False),
    "as JSON with escaped slashes": json.dumps(SECRET).replace("/", "\\/"),
    "in a URL": quote(SECRET, safe=""),
    "in a form": quote_plus(SECRET),
    "in HTML": html.escape(SECRET),
    "in HTML by another library": html.escape(SECRET).replace("&#x27;", "&#39;"),
    "in base64": base64.b64encode(SECRET.encode()).decode(),
    "in hexadecimal digits": SECRET.encode().hex(),
}


@pytest.mark.parametrize("shown", SHOWN.values(), ids=SHOWN)
def test_a_secret_is_taken_out_in_each_form(shown: str) -> None:
    assert MARK in redacted(f"before {shown} after {shown}!", [SECRET])
    assert "c4n" not in redacted(f"before {shown} after {shown}!", [SECRET])
    assert redacted(f"before {shown} after", [SECRET]).startswith("before ")


def test_what_holds_no_secret_stays_as_it_is() -> None:
    assert redacted("no such order: pass", [SECRET], cut=True) == "no such order: pass"
    assert redacted("", [SECRET]) == ""
    assert redacted("all but the end", [], cut=True) == "all but the end"


def test_a_secret_that_any_text_would_hold_is_not_looked_for() -> None:
    assert redacted("an answer", ["an", "", "a"]) == "an answer"


@given(st.text(st.characters(codec="utf-8"), min_size=9, max_size=40), st.integers(5, 40), st.text(max_size=20))
def test_the_end_of_what_is_kept_shows_no_beginning_of_a_secret(secret: str, size: int, before: str) -> None:
    begun = secret[: min(size, len(secret) - 1)]
    kept = redacted(before + begun, [secret], cut=True)
    assert not kept.endswith(begun)
    assert MARK in kept


def test_no_secret_of_a_certificate_is_sent() -> None:
    assert list(secrets_of(None, ())) == []


# End to end


@dataclass
class Echo:
    """A sink that answers 500 with everything that it was sent, and that remembers it."""

    url: str = ""
    authorizations: list[str] = field(default_factory=list)

    async def answer(self, request: web.BaseRequest) -> web.Response:
        """Repeat the request's headers in several forms."""
        headers = {name.lower(): value for name, value in request.headers.items() if "auth" in name.lower() or "key" in name.lower()}
        self.authorizations.append(headers.get("authorization", ""))
        status = 401 if self.authorizations[-1].endswith("token-1") else 500
        text = f"{headers} {json.dumps(headers)} {html.escape(str(headers))}"
        return web.Response(status=status, text=text, headers={"WebHook-Allowed-Origin": str(headers)[:90]})


@pytest.fixture
async def echo() -> AsyncIterator[Echo]:
    """A running echo."""
    sink = Echo()
    runner = web.ServerRunner(web.Server(sink.answer))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    sink.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield sink
    await runner.cleanup()


@pytest.mark.parametrize("kind", ["plain", "access_token", "header", "oauth2"])
async def test_what_a_sink_repeats_is_kept_without_the_secret(system: System, echo: Echo, kind: str) -> None:
    async with authority() as server, system.delivering(HOOKTIDE_DELIVERY_RETRY_DELAYS_SECONDS="0.1") as delivering:
        token_url = f"http://127.0.0.1:{server.port}/token"
        oauth2 = pb.OAuth2Credential(token_url=token_url, client_id="client 1", client_secret="s:ecret")
        credential = {
            "plain": pb.SinkCredential(plain=pb.PlainCredential(identifier="me", secret="canary/1")),
            "access_token": pb.SinkCredential(access_token=pb.AccessTokenCredential(token="canary/1")),
            "header": pb.SinkCredential(header=pb.HeaderCredential(name="X-Key", value="ApiKey canary/1")),
            "oauth2": pb.SinkCredential(oauth2=oauth2),
        }[kind]
        request = pb.CreateSubscriptionRequest(
            consumer_id=system.consumer_id, subscription=pb.Subscription(sink=echo.url, sink_credential=credential)
        )
        await system.registry.call(system.registry.subscriptions.CreateSubscription, request)
        await system.publish(cloud_event("7"))
        (found,) = await delivering.until(1, state=State.DELIVERY_STATE_EXHAUSTED)
        attempts = (await delivering.delivery(found.id)).attempts
    assert len(attempts) == 2
    for attempt in attempts:
        assert attempt.status == 500
        assert attempt.response_body.count(MARK) == 3
        assert "canary" not in attempt.response_body
        assert "token-" not in attempt.response_body
        assert base64.b64encode(b"me:canary/1").decode() not in attempt.response_body
    if kind == "oauth2":
        assert echo.authorizations == ["Bearer token-1", "Bearer token-2", "Bearer token-2"]
