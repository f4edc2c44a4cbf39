"""Access: who may call which gRPC method. A method that is not declared is denied.

Services authenticate each other by a shared token in `authorization: Bearer hts_…`. Emitters send an API key in the same header; the
server's authorizer or the method itself checks it against the registry.
"""

import hashlib
import hmac
import secrets
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import overload

from services.runtime.errors import Failure, Reason

TOKEN_PREFIX = "hts_"  # noqa: S105 - the public prefix of every token, not a token
_BEARER = "bearer "


class Access(Enum):
    """The kinds of caller that may use a method."""

    PUBLIC = "every caller, without credentials"
    KEY = "every caller with an API key; the method checks the key"
    SERVICE = "the other services, with the service token"


def new_service_token() -> str:
    """Return a new service token of 32 random bytes."""
    return TOKEN_PREFIX + secrets.token_urlsafe(32)


def bearer(authorization: str) -> str | None:
    """Return the credential of an `authorization` value; None if its scheme is not Bearer."""
    if authorization[: len(_BEARER)].lower() != _BEARER:
        return None
    return authorization[len(_BEARER) :].strip() or None


class ServiceTokens(Sequence[tuple[str, str]]):
    """The tokens by which the services authenticate each other: the first is sent, all are accepted.

    The object also serves as the metadata of a call, and yields the token that is current when the call begins.
    """

    def __init__(self, tokens: Sequence[str]) -> None:
        self.replace(tokens)

    def replace(self, tokens: Sequence[str]) -> None:
        """Send and accept these tokens from now on; there must be at least one."""
        self._digests = tuple(_digest(token) for token in tokens)
        self._metadata = (("authorization", f"Bearer {tokens[0]}"),)

    def accepts(self, token: str) -> bool:
        """Return whether a token is accepted. The time that the check takes reveals nothing about the accepted tokens."""
        digest = _digest(token)
        return sum(hmac.compare_digest(digest, known) for known in self._digests) > 0

    @overload
    def __getitem__(self, index: int) -> tuple[str, str]: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[tuple[str, str]]: ...

    def __getitem__(self, index: int | slice) -> tuple[str, str] | Sequence[tuple[str, str]]:
        return self._metadata[index]

    def __len__(self) -> int:
        return len(self._metadata)


ServiceToken = str | ServiceTokens
"""One token for the life of the process, or tokens that a reload may replace."""


class AccessRules:
    """Decides by method name and credential whether a call is permitted."""

    def __init__(self, rules: Mapping[str, Access], service_token: ServiceToken) -> None:
        """Take the access of each method, by its full name (``/package.Service/Method``)."""
        self._rules = dict(rules)
        self._tokens = service_token if isinstance(service_token, ServiceTokens) else ServiceTokens([service_token])

    def check(self, method: str, authorization: str) -> Access:
        """Return the method's access; raise `Failure` if the method is for services, or not declared, and the token is not accepted."""
        match self._rules.get(method):
            case (Access.PUBLIC | Access.KEY) as access:
                return access
            case Access.SERVICE if self._is_service(authorization):
                return Access.SERVICE
            case _:
                raise Failure(
                    Reason.SERVICE_TOKEN_REQUIRED,
                    "Only Hooktide's own services may call this method; send the service token as `authorization: Bearer hts_…`.",
                )

    def _is_service(self, authorization: str) -> bool:
        token = bearer(authorization)
        return token is not None and self._tokens.accepts(token)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
