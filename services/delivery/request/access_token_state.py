"""Access token state: decides when to fetch, use, renew and drop an access token, by the client credentials grant.

oauth2_client → [access_token_state] → credentials

Law 1: pure; time (seconds of a monotonic clock) and chance arrive as arguments, and states are values.
Law 2: a token is renewed before it expires, by one call at a time, and used until then. After each failure of the server, the wait
before the next call doubles, up to 300 s (± 20 % by chance).
Law 3: a token that the sink refuses is replaced at most once in 60 s. If the sink refuses the next token too, the token is not the cause.
Rule: RFC 6749, sections 2.3.1, 4.4 and 5. No text that is shown contains a secret, a token, or the server's own prose.
"""

import base64
import dataclasses
import json
import math
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
    """An access token, when to renew it, and when it expires."""

    value: str = field(repr=False)
    renew_at: float
    expires_at: float


@dataclass(frozen=True, slots=True)
class TokenState:
    """The state of one credential's tokens. A new credential begins with a new state."""

    token: Token | None = None
    fetching: bool = False
    failures: int = 0
    """How many calls have failed in a row."""
    retry_at: float = 0.0
    """The authorization server is not called before this time."""
    why: str = ""
    """Why the latest call to it failed."""
    trusted_until: float = 0.0
    """A token that the sink refuses before this time is not replaced."""


class UseToken(NamedTuple):
    """Send the request with this token; if `renew` is set, also fetch the next token."""

    token: Token
    renew: bool


class FetchToken(NamedTuple):
    """Fetch a token first: call `began`, then `fetched` or `failed`."""


class AwaitToken(NamedTuple):
    """A token is being fetched; wait for it."""


class NoToken(NamedTuple):
    """There is no token, and none will be fetched before `retry_at`: the attempt fails. `why` is a clause."""

    why: str
    retry_at: float


Need = UseToken | FetchToken | AwaitToken | NoToken


class TokenRequest(NamedTuple):
    """The call that fetches a token."""

    url: str
    headers: dict[str, str]
    body: bytes


class TokenFailure(NamedTuple):
    """A call that brought no token; `why` is a clause."""

    why: str


def need(state: TokenState, now: float) -> Need:
    """Return what an attempt that needs a token has to do now."""
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
    """Note a failed call; `chance` is uniform in [0, 1). A present token is used until it expires."""
    wait_s = min(_BACKOFF_FIRST_S * 2**state.failures, _BACKOFF_MAX_S) * (1 - _JITTER + 2 * _JITTER * chance)
    # Bound the exponent, because a server may fail any number of times.
    failures = min(state.failures + 1, 30)
    return dataclasses.replace(state, fetching=False, failures=failures, retry_at=now + wait_s, why=why)


def rejected(state: TokenState, token: Token, now: float) -> tuple[TokenState, bool]:
    """Note that the sink answered 401 to a token; return whether the attempt sends its request once more, with another token."""
    if state.token != token:
        # The token was replaced meanwhile, for another request.
        return state, True
    if now < state.trusted_until:
        return state, False
    return dataclasses.replace(state, token=None, trusted_until=now + _TRUSTED_S), True


def token_request(token_url: str, client_id: str, client_secret: str, scope: str) -> TokenRequest:
    """Return the call that fetches a token. Its URL obeys the rules for sinks; its answer is bounded by `RESPONSE_BYTES_MAX`."""
    basic = base64.b64encode(f"{quote_plus(client_id)}:{quote_plus(client_secret)}".encode()).decode()
    form = {"grant_type": "client_credentials"} | ({"scope": scope} if scope else {})
    headers = {
        "accept": "application/json",
        "authorization": f"Basic {basic}",
        "content-type": "application/x-www-form-urlencoded",
    }
    return TokenRequest(token_url, headers, urlencode(form).encode())


def token_of(status: int, body: bytes, asked_at: float) -> Token | TokenFailure:
    """Return the token in the answer to a call that began at `asked_at`, or the reason why the answer has no token."""
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
        return TokenFailure("the authorization server's answer has no valid access_token")
    if not isinstance(kind, str) or kind.lower() != "bearer":
        return TokenFailure("the token_type in the authorization server's answer is not Bearer")
    lifetime_s = _lifetime_s(members.get("expires_in"))
    if lifetime_s <= 0:
        return TokenFailure("the authorization server returned a token that has expired already")
    expires_at = asked_at + lifetime_s
    return Token(value, expires_at - min(_RENEWED_BEFORE_S, lifetime_s * _RENEWED_BEFORE_SHARE), expires_at)


def _lifetime_s(expires_in: object) -> float:
    """Return a token's lifetime in seconds. Some servers write the number as text, or leave it out."""
    if isinstance(expires_in, str) and _NUMBER.fullmatch(expires_in):
        expires_in = int(expires_in)
    if isinstance(expires_in, bool) or not isinstance(expires_in, int | float):
        return LIFETIME_DEFAULT_S
    # JSON parsing may give NaN, or an integer larger than any float.
    lifetime_s = float(min(expires_in, LIFETIME_MAX_S))
    return LIFETIME_DEFAULT_S if math.isnan(lifetime_s) else lifetime_s
