"""Credential validation: which credentials a subscription may have.

validation → [credential_validation] → certificates, header_rules

Law: pure, and no message repeats a secret. Each check returns the problems that it finds, under the names of the contract.
"""

import re
import unicodedata
from collections.abc import Mapping

from services.egress.policy import EgressPolicy
from services.runtime.errors import FieldError
from services.subscription.credential import CredentialKind, SecretCredential
from services.subscription.rules.certificates import certificates_problem, private_key_problem
from services.subscription.rules.header_rules import name_problem, value_problem

NAME_CHARS_MAX = 256
PASSWORD_CHARS_MAX = 1024
TOKEN_CHARS_MAX = 8192
SCOPE_CHARS_MAX = 1024
TOKEN_TYPE_CHARS_MAX = 64

_TOKEN = re.compile(r"[\x21-\x7e]+")
_TOKEN_TYPE = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
# Scope tokens of RFC 6749: visible ASCII without the quotation mark and the backslash.
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+(?: [\x21\x23-\x5b\x5d-\x7e]+)*")
_VISIBLE_AND_SPACE = re.compile(r"[\x20-\x7e]+")


def credential_problems(wanted: SecretCredential | None, policy: EgressPolicy, refusals: Mapping[str, str]) -> list[FieldError]:
    """Validate a credential as it will be stored, including its secret; `refusals` as in `subscription_problems`."""
    if wanted is None:
        return []
    kind, shown, secret = wanted.credential.kind, wanted.credential.shown, wanted.secret
    match kind:
        case CredentialKind.PLAIN:
            found = {"identifier": _identifier_problem(shown["identifier"]), "secret": _text_problem(secret, PASSWORD_CHARS_MAX)}
        case CredentialKind.ACCESS_TOKEN:
            found = {"token": _token_problem(secret), "token_type": _token_type_problem(shown["token_type"])}
        case CredentialKind.HEADER:
            name = shown["name"]
            found = {
                "name": "is required" if not name else name_problem(name, secret=True),
                "value": "is required" if not secret else value_problem(secret, TOKEN_CHARS_MAX),
            }
        case CredentialKind.OAUTH2:
            url = shown["token_url"]
            found = {
                "token_url": policy.check_url(url) or refusals.get(url) if url else "is required: the authorization server's token URL",
                "client_id": _client_problem(shown["client_id"], NAME_CHARS_MAX),
                "client_secret": _client_problem(secret, PASSWORD_CHARS_MAX),
                "scope": _scope_problem(shown["scope"]),
            }
        case CredentialKind.MTLS:
            certificate = shown["certificate"]
            why = certificates_problem(certificate) if certificate else "is required: the client certificate in PEM"
            found = {"certificate": why, "private_key": _private_key_problem(secret, None if why else certificate)}
    prefix = f"subscription.sink_credential.{kind.value}"
    return [FieldError(f"{prefix}.{name}", why) for name, why in found.items() if why is not None]


def header_clash_problems(wanted: SecretCredential | None, headers: tuple[tuple[str, str], ...]) -> list[FieldError]:
    """Check that no header in the settings has the name of a credential's header, since a request carries each header once."""
    if wanted is None or wanted.credential.kind is not CredentialKind.HEADER:
        return []
    name = wanted.credential.shown["name"]
    if all(name != other.lower() for other, _ in headers):
        return []
    return [
        FieldError(
            "subscription.sink_credential.header.name",
            "is also a header in the settings; remove it from the credential or from the settings",
        )
    ]


def _identifier_problem(text: str) -> str | None:
    if ":" in text:
        return "must not have a colon, because a colon ends the user name (RFC 7617)"
    return _text_problem(text, NAME_CHARS_MAX)


def _text_problem(text: str, chars_max: int) -> str | None:
    if not text:
        return "is required"
    if len(text) > chars_max:
        return f"must be at most {chars_max} characters; this has {len(text)}"
    if any(unicodedata.category(character) in {"Cc", "Cs"} for character in text):
        return "must not have control characters"
    return None


def _client_problem(text: str, chars_max: int) -> str | None:
    if text and _VISIBLE_AND_SPACE.fullmatch(text) is None:
        return "must be printable ASCII (RFC 6749)"
    return _text_problem(text, chars_max)


def _token_problem(text: str) -> str | None:
    if not text:
        return "is required"
    if len(text) > TOKEN_CHARS_MAX:
        return f"must be at most {TOKEN_CHARS_MAX} characters; this has {len(text)}"
    return None if _TOKEN.fullmatch(text) else "must be visible ASCII characters, without spaces"


def _token_type_problem(text: str) -> str | None:
    if len(text) <= TOKEN_TYPE_CHARS_MAX and _TOKEN_TYPE.fullmatch(text):
        return None
    return f"must be the name of a scheme, such as Bearer, at most {TOKEN_TYPE_CHARS_MAX} characters"


def _scope_problem(text: str) -> str | None:
    if len(text) > SCOPE_CHARS_MAX:
        return f"must be at most {SCOPE_CHARS_MAX} characters; this has {len(text)}"
    return None if not text or _SCOPE.fullmatch(text) else "must be scopes, separated by single spaces"


def _private_key_problem(secret: str, certificate: str | None) -> str | None:
    if not secret:
        return "is required"
    return None if certificate is None else private_key_problem(secret, certificate)
