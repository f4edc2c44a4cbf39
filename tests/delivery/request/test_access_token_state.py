import base64
import json
import random
from urllib.parse import parse_qs, unquote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.delivery.request.access_token_state import (
    LIFETIME_DEFAULT_S,
    LIFETIME_MAX_S,
    AwaitToken,
    FetchToken,
    NoToken,
    Token,
    TokenFailure,
    TokenState,
    UseToken,
    began,
    failed,
    fetched,
    need,
    rejected,
    token_of,
    token_request,
)

ANSWER = {"access_token": "t-1", "token_type": "Bearer", "expires_in": 3600}


def given_at(now: float, value: str = "t", lifetime_s: float = 3600) -> Token:
    token = token_of(200, json.dumps({**ANSWER, "access_token": value, "expires_in": lifetime_s}).encode(), now)
    assert isinstance(token, Token)
    return token


def test_the_first_attempt_fetches_and_the_others_wait() -> None:
    state = TokenState()
    assert need(state, 0.0) == FetchToken()
    state = began(state)
    assert need(state, 0.0) == AwaitToken()
    token = given_at(0.0)
    state = fetched(state, token)
    assert need(state, 1.0) == UseToken(token, renew=False)


def test_a_token_is_renewed_before_it_ends_by_one_call_while_it_is_still_used() -> None:
    token = given_at(0.0)
    state = fetched(began(TokenState()), token)
    assert need(state, 3539.9) == UseToken(token, renew=False)
    assert need(state, 3540.0) == UseToken(token, renew=True)
    state = began(state)
    assert need(state, 3541.0) == UseToken(token, renew=False)
    assert need(state, 3600.0) == AwaitToken()
    second = given_at(3541.0, "second")
    assert need(fetched(state, second), 3600.0) == UseToken(second, renew=False)


def test_a_short_lived_token_is_used_for_most_of_its_life() -> None:
    token = given_at(0.0, lifetime_s=10)
    assert (token.renew_at, token.expires_at) == (8.0, 10.0)


def test_a_renewal_that_fails_costs_nothing_until_the_token_ends() -> None:
    token = given_at(0.0)
    state = failed(began(fetched(began(TokenState()), token)), "why", 3540.0, 0.5)
    assert need(state, 3540.5) == UseToken(token, renew=False)
    assert need(state, 3541.0) == UseToken(token, renew=True)
    assert need(state, 3600.0) == FetchToken()


def test_a_server_that_fails_is_asked_less_and_less_and_attempts_fail_meanwhile() -> None:
    state, now, waits = TokenState(), 0.0, []
    for _ in range(40):
        state = failed(began(state), "the authorization server answered 500", now, 0.5)
        found = need(state, now)
        assert isinstance(found, NoToken)
        assert found.why == "the authorization server answered 500"
        waits.append(found.retry_at - now)
        now = found.retry_at
        assert need(state, now) == FetchToken()
    assert waits[:4] == [1.0, 2.0, 4.0, 8.0]
    assert max(waits) == waits[-1] == 300.0
    assert need(fetched(began(state), given_at(now)), now) == UseToken(given_at(now), renew=False)


def test_a_token_that_the_sink_refuses_is_replaced_once() -> None:
    first, second = given_at(0.0, "first"), given_at(10.0, "second")
    state = fetched(began(TokenState()), first)
    state, again = rejected(state, first, 10.0)
    assert (again, need(state, 10.0)) == (True, FetchToken())
    state = fetched(began(state), second)
    state, again = rejected(state, second, 11.0)
    assert (again, need(state, 11.0)) == (False, UseToken(second, renew=False))
    state, again = rejected(state, second, 70.0)
    assert (again, need(state, 70.0)) == (True, FetchToken())


def test_of_many_requests_refused_with_one_token_one_replaces_it() -> None:
    first, second = given_at(0.0, "first"), given_at(0.0, "second")
    state, again = rejected(fetched(began(TokenState()), first), first, 1.0)
    assert again
    assert rejected(state, first, 1.0) == (state, True)
    state = fetched(began(state), second)
    assert rejected(state, first, 2.0) == (state, True)
    assert need(state, 2.0) == UseToken(second, renew=False)


@given(st.lists(st.sampled_from(["attempt", "answer", "fail", "reject", "wait"]), max_size=60), st.integers(0, 2**32))
def test_no_sequence_fetches_twice_at_once_or_uses_a_token_that_has_ended(steps: list[str], seed: int) -> None:
    chance = random.Random(seed)
    state, now, fetching, number = TokenState(), 0.0, False, 0
    for step in steps:
        match step:
            case "attempt":
                match need(state, now):
                    case UseToken(token, renew):
                        assert now < token.expires_at
                        assert not (renew and fetching)
                        fetching = fetching or renew
                        state = began(state) if renew else state
                    case FetchToken():
                        assert not fetching
                        fetching, state = True, began(state)
                    case AwaitToken():
                        assert fetching
                    case NoToken(_, retry_at):
                        assert now < retry_at
            case "answer" if fetching:
                number += 1
                fetching, state = False, fetched(state, given_at(now, f"t{number}", chance.choice([1, 30, 3600])))
            case "fail" if fetching:
                fetching, state = False, failed(state, "why", now, chance.random())
            case "reject" if state.token is not None:
                state, _ = rejected(state, state.token, now)
            case _:
                now += chance.choice([0.5, 10, 100, 4000])


def test_the_call_is_that_of_rfc_6749() -> None:
    """The client authenticates by Basic with the form-encoded id and secret; the scope is sent only if there is one."""
    request = token_request("https://id.example/token", "me & you", "s:é+%", "a b")
    assert request.url == "https://id.example/token"
    name, _, secret = base64.b64decode(request.headers["authorization"].removeprefix("Basic ")).decode().partition(":")
    assert (unquote_plus(name), unquote_plus(secret)) == ("me & you", "s:é+%")
    assert request.headers["content-type"] == "application/x-www-form-urlencoded"
    assert parse_qs(request.body.decode()) == {"grant_type": ["client_credentials"], "scope": ["a b"]}
    assert parse_qs(token_request("https://id.example/token", "me", "s", "").body.decode()) == {"grant_type": ["client_credentials"]}


@pytest.mark.parametrize(
    ("expires_in", "lifetime_s"),
    [
        (3600, 3600),
        (1.5, 1.5),
        ("60", 60),
        (None, LIFETIME_DEFAULT_S),
        (True, LIFETIME_DEFAULT_S),
        ("soon", LIFETIME_DEFAULT_S),
        (10**400, LIFETIME_MAX_S),
        (float("inf"), LIFETIME_MAX_S),
        (float("nan"), LIFETIME_DEFAULT_S),
    ],
)
def test_a_token_lasts_as_long_as_the_server_says_within_reason(expires_in: object, lifetime_s: float) -> None:
    token = token_of(200, json.dumps({**ANSWER, "expires_in": expires_in}).encode(), 100.0)
    assert isinstance(token, Token)
    assert token.expires_at == 100.0 + lifetime_s
    assert 100.0 <= token.renew_at < token.expires_at


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (200, b"", "no valid access_token"),
        (200, b"[]", "no valid access_token"),
        (200, b"[" * 100_000, "no valid access_token"),
        (200, b"\xff\xfe", "no valid access_token"),
        (200, json.dumps({**ANSWER, "access_token": 7}).encode(), "no valid access_token"),
        (200, json.dumps({**ANSWER, "access_token": "a\r\nx: y"}).encode(), "no valid access_token"),
        (200, json.dumps({**ANSWER, "access_token": "t" * 8193}).encode(), "no valid access_token"),
        (200, json.dumps({**ANSWER, "token_type": "mac"}).encode(), "token_type"),
        (200, json.dumps({"access_token": "t"}).encode(), "token_type"),
        (200, json.dumps({**ANSWER, "expires_in": 0}).encode(), "expired already"),
        (201, json.dumps(ANSWER).encode(), "answered 201"),
        (302, b"", "answered 302"),
        (401, b'{"error": "invalid_client", "error_description": "canary"}', "answered 401 (invalid_client)"),
        (400, b'{"error": "canary said\\n"}', "answered 400"),
    ],
)
def test_an_answer_without_a_token_says_why_and_repeats_no_prose(status: int, body: bytes, words: str) -> None:
    found = token_of(status, body, 0.0)
    assert isinstance(found, TokenFailure)
    assert words in found.why
    assert "canary" not in found.why
