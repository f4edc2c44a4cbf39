"""OAuth2: when an access token is fetched, used, renewed and given up. The client credentials grant.

attempt → [oauth2] → credentials

Law 1: pure; time (seconds of a monotonic clock) and chance arrive as arguments, and states are values.
Law 2: a token is renewed before it ends, by one call at a time, and used until then; a server that fails is asked less and less.
Law 3: a token that the sink refuses is replaced once; that the next one is refused too is the sink's word, not the token's fault.
Rule: RFC 6749, sections 2.3.1, 4.4 and 5. No text that is shown repeats a secret, a token, or prose of the server's.
"""

import base64
import dataclasses
import json
import re
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import quote_plus, urlencode

METHOD = "POST"
RESPONSE_BYTES_MAX = 64 * 1024
TOKEN_CHARS_MAX = 8192
LIFETIME_DEFAULT_S = 300.0
LIFETIME_MAX_S = 24 * 3600.0
_RENEWED_BEFORE_S = 60.0
_RENEWED_BEFORE_SHARE = 0.2
_BACKOFF_FIRST_S = 1.0
_BACKOFF_MAX_S = 300.0
_JITTER = 0.2
_TRUSTED_S = 60.0
_OK = 200
_VISIBLE = re.compile(r"[!-~]+")
_ERROR = re.compile(r"[a-z_]{1,40}", re.ASCII)
_NUMBER = re.compile(r"[0-9]{1,10}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Token:
    """An access token, and from when it is to be renewed and no longer to be used."""

    value: str = field(repr=False)
    renew_at: float
    expires_at: float


@dataclass(frozen=True, slots=True)
class TokenState:
    """What is known of one subscription's tokens. A new credential begins with a new state."""

    token: Token | None = None
    fetching: bool = False
    failures: int = 0
    """In a row."""
    retry_at: float = 0.0
    """The authorization server is not asked before."""
    why: str = ""
    """Why the latest call to it failed."""
    trusted_until: float = 0.0
    """A token that the sink refuses before is not replaced."""


class UseToken(NamedTuple):
    """Send the request with this token; where `renew` is set, also fetch the next one."""

    token: Token
    renew: bool


class FetchToken(NamedTuple):
    """Fetch a token first: note it by `began`, then `fetched` or `failed`."""


class AwaitToken(NamedTuple):
    """A token is being fetched: wait for it."""


class NoToken(NamedTuple):
    """There is none, and none is to be had before `retry_at`: the attempt fails; `why` is a clause."""

    why: str
    retry_at: float


Need = UseToken | FetchToken | AwaitToken | NoToken


class TokenRequest(NamedTuple):
    """The call that fetches a token."""

    url: str
    headers: dict[str, str]
    body: bytes


class TokenFailure(NamedTuple):
    """An answer that holds no token; `why` is a clause."""

    why: str


def need(state: TokenState, now: float) -> Need:
    """Return what an attempt that needs a token does now."""
    token = state.token
    if token is not None and now < token.expires_at:
        return UseToken(token, renew=now >= token.renew_at and not state.fetching and now >= state.retry_at)
    if state.fetching:
        return AwaitToken()
    return NoToken(state.why, state.retry_at) if now < state.retry_at else FetchToken()


def began(state: TokenState) -> TokenState:
    """Note that a token is being fetched."""
    return dataclasses.replace(state, fetching=True)


def fetched(state: TokenState, token: Token) -> TokenState:
    """Note a new token."""
    return TokenState(token=token, trusted_until=state.trusted_until)


def failed(state: TokenState, why: str, now: float, chance: float) -> TokenState:
    """Note that no token was given; `chance` is uniform in [0, 1). One that is there is used until it ends."""
    wait_s = min(_BACKOFF_FIRST_S * 2**state.failures, _BACKOFF_MAX_S) * (1 - _JITTER + 2 * _JITTER * chance)
    # The exponent is bounded, since nothing bounds how long a server fails.
    failures = min(state.failures + 1, 30)
    return dataclasses.replace(state, fetching=False, failures=failures, retry_at=now + wait_s, why=why)


def rejected(state: TokenState, token: Token, now: float) -> tuple[TokenState, bool]:
    """Note that the sink has answered 401 to a token; returns whether the attempt sends its request again, once, with another."""
    if state.token != token:
        # Replaced in the meantime, on behalf of another request.
        return state, True
    if now < state.trusted_until:
        return state, False
    return dataclasses.replace(state, token=None, trusted_until=now + _TRUSTED_S), True


def token_request(token_url: str, client_id: str, client_secret: str, scope: str) -> TokenRequest:
    """Return the call that fetches a token; a sink's rules hold for its URL, and its answer is bounded by `RESPONSE_BYTES_MAX`."""
    basic = base64.b64encode(f"{quote_plus(client_id)}:{quote_plus(client_secret)}".encode()).decode()
    form = {"grant_type": "client_credentials"} | ({"scope": scope} if scope else {})
    headers = {
        "accept": "application/json",
        "authorization": f"Basic {basic}",
        "content-type": "application/x-www-form-urlencoded",
    }
    return TokenRequest(token_url, headers, urlencode(form).encode())


def token_of(status: int, body: bytes, asked_at: float) -> Token | TokenFailure:
    """Return the token in an answer to a call that was begun at `asked_at`."""
    try:
        members = json.loads(body)
    except (ValueError, RecursionError):
        members = None
    if not isinstance(members, dict):
        members = {}
    if status != _OK:
        error = members.get("error")
        code = f" ({error})" if isinstance(error, str) and _ERROR.fullmatch(error) else ""
        return TokenFailure(f"the authorization server answered {status}{code}")
    value, kind = members.get("access_token"), members.get("token_type")
    if not isinstance(value, str) or len(value) > TOKEN_CHARS_MAX or _VISIBLE.fullmatch(value) is None:
        return TokenFailure("the authorization server's answer has no access_token that can be sent")
    if not isinstance(kind, str) or kind.lower() != "bearer":
        return TokenFailure("the authorization server's answer has another token_type than Bearer")
    lifetime_s = _lifetime_s(members.get("expires_in"))
    if lifetime_s <= 0:
        return TokenFailure("the authorization server gave a token that has ended already")
    expires_at = asked_at + lifetime_s
    return Token(value, expires_at - min(_RENEWED_BEFORE_S, lifetime_s * _RENEWED_BEFORE_SHARE), expires_at)


def _lifetime_s(expires_in: object) -> float:
    """Return for how long a token is good. Some servers write the number as text, or leave it out."""
    if isinstance(expires_in, str) and _NUMBER.fullmatch(expires_in):
        expires_in = int(expires_in)
    if isinstance(expires_in, bool) or not isinstance(expires_in, int | float):
        return LIFETIME_DEFAULT_S
    # Not a number is no number; and a whole one may be larger than any float.
    return float(min(expires_in, LIFETIME_MAX_S)) if expires_in == expires_in else LIFETIME_DEFAULT_S  # noqa: PLR0124
