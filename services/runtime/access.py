"""Access: who may call which gRPC method. What is not declared is denied.

Services know each other by a shared token in `authorization: Bearer hts_…`; emitters send an API key
in the same header, which the method itself checks against the registry.
"""

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from enum import Enum

from services.runtime.errors import Failure, Reason

TOKEN_PREFIX = "hts_"  # noqa: S105 - the visible beginning of every token, not one of them
_BEARER = "bearer "


class Access(Enum):
    """Who may call a method."""

    PUBLIC = "anyone, without credentials"
    KEY = "whoever has an API key; the method checks it"
    SERVICE = "the other services, by the service token"


def new_service_token() -> str:
    """Return a new service token of 32 random bytes."""
    return TOKEN_PREFIX + secrets.token_urlsafe(32)


def bearer(authorization: str) -> str | None:
    """Return the credential of an `authorization` value of the scheme Bearer, else None."""
    if authorization[: len(_BEARER)].lower() != _BEARER:
        return None
    return authorization[len(_BEARER) :].strip() or None


class AccessRules:
    """Decides on calls by method name and credential."""

    def __init__(self, rules: Mapping[str, Access], service_token: str) -> None:
        """Take the full method names (``/package.Service/Method``) with who may call them."""
        self._rules = dict(rules)
        self._token_digest = hashlib.sha256(service_token.encode()).digest()

    def check(self, method: str, authorization: str) -> Access:
        """Return who may call the method; raise `Failure` if it is for services and the token is not theirs."""
        match self._rules.get(method):
            case (Access.PUBLIC | Access.KEY) as access:
                return access
            case Access.SERVICE if self._is_service(authorization):
                return Access.SERVICE
            case _:
                raise Failure(
                    Reason.SERVICE_TOKEN_REQUIRED,
                    "This method is for Hooktide's own services: send their token as `authorization: Bearer hts_…`.",
                )

    def _is_service(self, authorization: str) -> bool:
        token = bearer(authorization)
        digest = hashlib.sha256((token or "").encode()).digest()
        return token is not None and hmac.compare_digest(digest, self._token_digest)
