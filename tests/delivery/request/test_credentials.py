import base64

import pytest

from services.delivery.request.access_token_state import Token
from services.delivery.request.credentials import AccessToken, Credential, Header, MutualTls, OAuth2, Plain, headers_of


def decoded(headers: dict[str, str]) -> str:
    scheme, _, encoded = headers["authorization"].partition(" ")
    assert scheme == "Basic"
    return base64.b64decode(encoded, validate=True).decode()


def test_basic_is_that_of_rfc_7617() -> None:
    """The two examples are those of the RFC."""
    assert headers_of(Plain("Aladdin", "open sesame")) == {"authorization": "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="}
    assert headers_of(Plain("test", "123\u00a3")) == {"authorization": "Basic dGVzdDoxMjPCow=="}


@pytest.mark.parametrize(("identifier", "secret"), [("", "x"), ("shop", "a:b::"), ("shöp", "pässword ☃"), ("e\u0301", "o\u0308")])
def test_basic_carries_any_text_as_normalized_utf_8(identifier: str, secret: str) -> None:
    sent = decoded(headers_of(Plain(identifier, secret)))
    composed = f"{identifier}:{secret}".replace("e\u0301", "é").replace("o\u0308", "ö")
    assert sent == composed


@pytest.mark.parametrize(
    ("credential", "headers"),
    [
        (None, {}),
        (AccessToken("t-1.2", "Bearer"), {"authorization": "Bearer t-1.2"}),
        (AccessToken("t", "Token"), {"authorization": "Token t"}),
        (Header("x-api-key", "v 1"), {"x-api-key": "v 1"}),
        (Header("authorization", "Custom abc"), {"authorization": "Custom abc"}),
        (MutualTls("certificate", "key"), {}),
    ],
)
def test_a_credential_adds_its_header(credential: Credential | None, headers: dict[str, str]) -> None:
    assert headers_of(credential) == headers


def test_oauth2_sends_the_token_that_it_is_given_and_nothing_of_the_client() -> None:
    client = OAuth2("https://id.example/token", "me", "canary", "a b")
    assert headers_of(client, Token("t", 1.0, 2.0)) == {"authorization": "Bearer t"}
    with pytest.raises(ValueError, match="no access token"):
        headers_of(client)


def test_no_secret_shows_in_a_values_text() -> None:
    credentials = [
        Plain("me", "canary"),
        AccessToken("canary", "Bearer"),
        Header("x", "canary"),
        OAuth2("https://id.example/token", "me", "canary", ""),
        MutualTls("certificate", "canary"),
    ]
    assert "canary" not in repr(credentials)
    assert "canary" not in repr(Token("canary", 1.0, 2.0))
