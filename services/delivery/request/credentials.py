"""Credentials: authenticate Hooktide to the sink, in addition to the signature.

request_builder → [credentials] → transport

Law: pure, and no secret appears in the `repr` of a credential.
Rules: RFC 7617 (Basic), RFC 6750 (Bearer).
"""

import base64
import unicodedata
from dataclasses import dataclass, field

from services.delivery.request.access_token_state import Token


@dataclass(frozen=True, slots=True)
class Plain:
    """A user name and a password."""

    identifier: str
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A token, and the scheme with which it is sent."""

    token: str = field(repr=False)
    token_type: str


@dataclass(frozen=True, slots=True)
class Header:
    """A header with a secret value; its name is in lower case."""

    name: str
    value: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class OAuth2:
    """A client of an authorization server, which issues the access tokens; see `oauth2_client`."""

    token_url: str
    client_id: str
    client_secret: str = field(repr=False)
    scope: str
    ca_certificates: str = field(default="", repr=False)
    """PEM: authorities that may issue the server's certificate, besides the public ones; "" for no others."""


@dataclass(frozen=True, slots=True)
class MutualTls:
    """A client certificate with the chain to its root, and its private key, both PEM. The connection uses them, not a header."""

    certificate: str
    private_key: str = field(repr=False)


Credential = Plain | AccessToken | Header | OAuth2 | MutualTls


def headers_of(credential: Credential | None, token: Token | None = None) -> dict[str, str]:
    """Return the headers that a credential adds to a request. OAuth2 needs a `token` that `access_token_state.need` has found usable.

    Raises `ValueError` for OAuth2 without a token.
    """
    match credential:
        case Plain(identifier, secret):
            return {"authorization": f"Basic {_basic(identifier, secret)}"}
        case AccessToken(value, token_type):
            return {"authorization": f"{token_type} {value}"}
        case Header(name, value):
            return {name: value}
        case OAuth2():
            if token is None:
                message = "no access token is available"
                raise ValueError(message)
            return {"authorization": f"Bearer {token.value}"}
        case MutualTls() | None:
            return {}


def _basic(identifier: str, secret: str) -> str:
    # RFC 7617 leaves the character set to the server, lets the server ask for UTF-8 only, and expects UTF-8 in normalization form C.
    return base64.b64encode(unicodedata.normalize("NFC", f"{identifier}:{secret}").encode()).decode()
