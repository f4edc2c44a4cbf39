"""Attempt record: what is kept of an answer, without the secrets that the endpoint repeats."""

import base64

import pytest

from services.delivery.model import Secret
from services.delivery.request.attempt_record import attempt_of
from services.delivery.request.credentials import AccessToken, Credential, Header, OAuth2, Plain
from services.delivery.request.redaction import MARK
from services.delivery.request.request_settings import RequestSettings
from services.delivery.transport.protocol import RESPONSE_BYTES_KEPT, Answer, Outcome


def failed(body: bytes, settings: RequestSettings, **more: object) -> str:
    answer = Answer(Outcome.STATUS, 500, "the server answered 500", body, "", **more)  # type: ignore[arg-type]  # the fields' own types
    return attempt_of(answer, settings, 0, 0).body


@pytest.mark.parametrize(
    ("credential", "shown"),
    [
        (Plain("me", "open sesame"), "open sesame"),
        (Plain("me", "sesame"), base64.b64encode(b"me:sesame").decode()),
        (AccessToken("t0ken", "Bearer"), "t0ken"),
        (Header("x-key", "ApiKey 0123456789"), "0123456789"),
        (Header("x-key", "ApiKey 0123456789"), "ApiKey 0123456789"),
        (OAuth2("https://id.example/t", "me", "client secret", ""), "client secret"),
        (None, base64.b64encode(b"s" * 32).decode()),
    ],
)
def test_each_kind_of_secret_is_known(credential: Credential | None, shown: str) -> None:
    settings = RequestSettings(credential=credential, secrets=(Secret(b"s" * 32, None),))
    assert failed(f"you sent {shown}".encode(), settings) == f"you sent {MARK}"


def test_what_the_limit_or_the_character_set_cuts_is_known_too() -> None:
    settings = RequestSettings(credential=AccessToken("tökentöken", "Bearer"))
    for kept in (4, 5, 6, 7, 8, 9, 10, 11):
        raw = b"x" * (RESPONSE_BYTES_KEPT - kept) + "tökentöken".encode()
        found = failed(raw[:RESPONSE_BYTES_KEPT], settings)
        # A rest of fewer than four characters after the cut could be part of any text, so it stays.
        assert found.endswith(MARK) == (kept > 4), kept
        assert found.startswith("x" * (RESPONSE_BYTES_KEPT - kept))


def test_a_token_that_was_fetched_for_the_request_is_known() -> None:
    assert failed(b"bad token-7", RequestSettings(), sent_secrets=("token-7",)) == f"bad {MARK}"


def test_a_success_keeps_nothing_and_an_error_is_cleaned_too() -> None:
    settings = RequestSettings(credential=AccessToken("t0ken", "Bearer"))
    assert attempt_of(Answer(Outcome.DELIVERED, 200, "", b"", ""), settings, 5, 7) == (5, 7, Outcome.DELIVERED, 200, "", "")
    assert attempt_of(Answer(Outcome.TLS, 0, "TLS failed: t0ken", b"", ""), settings, 5, 7).error == f"TLS failed: {MARK}"
