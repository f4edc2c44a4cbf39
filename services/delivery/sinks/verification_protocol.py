"""Handshake: asks a sink for its consent, and reads its answer.

registry → [handshake] → transport → [handshake] → registry

Law 1: pure.
Law 2: consent is what the sink says in so many words, never a status: any server answers OPTIONS somehow.
Rule: CloudEvents HTTP 1.1 Web Hooks 1.0.2, "abuse protection".
"""

import math
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from services.delivery.request.request_builder import origin_headers

METHOD = "OPTIONS"
CALLBACK_PATH = "/v1/verifications/"
_ANY = "*"
_RATE = re.compile(r"[1-9][0-9]{0,8}", re.ASCII)
_SHOWN_CHARS_MAX = 100
ANSWER_PREFIX = "webhook-"
"""What the headers that are looked at in an answer begin with, in lower case."""
_ALLOWED_ORIGIN = "webhook-allowed-origin"
_ALLOWED_RATE = "webhook-allowed-rate"


class Granted(NamedTuple):
    """The sink consents; `rate_per_minute` is None where it sets no limit."""

    rate_per_minute: int | None


class Pending(NamedTuple):
    """The sink has said nothing; it may still consent by the callback URL."""

    why: str


class Refused(NamedTuple):
    """The sink does not consent; `why` is a clause for the subscription's owner."""

    why: str


Consent = Granted | Pending | Refused


def request_headers(origin: str, *, callback_url: str = "", rate_per_second: float | None = None) -> dict[str, str]:
    """Return the headers of the question; `callback_url` is "" where there is none to offer."""
    headers = origin_headers(origin)
    if callback_url:
        headers["webhook-request-callback"] = callback_url
    if rate_per_second is not None:
        headers["webhook-request-rate"] = str(max(1, math.ceil(rate_per_second * 60)))
    return headers


def callback_url(public_url: str, token: str) -> str:
    """Return where a sink may consent later; "" where the gateway's address is not known."""
    return f"{public_url}{CALLBACK_PATH}{token}" if public_url else ""


def consent(headers: Iterable[tuple[str, str]], origin: str, *, callback_offered: bool) -> Consent:
    """Return what the headers of a sink's answer say, of whatever status it was; names in any case, each as often as it came."""
    said: dict[str, list[str]] = {}
    for name, value in headers:
        said.setdefault(name.lower(), []).append(value.strip(" \t"))
    origins = said.get(_ALLOWED_ORIGIN, [])
    if not origins:
        return _silent(callback_offered=callback_offered)
    if len(origins) > 1 or origins[0].lower() not in {_ANY, origin.lower()}:
        return Refused(f"it permits {_shown(', '.join(origins))}; WebHook-Allowed-Origin must be {origin} or {_ANY}")
    return _rate(said)


def _silent(*, callback_offered: bool) -> Consent:
    why = "its answer to OPTIONS has no WebHook-Allowed-Origin"
    return Pending(f"{why}; it may still call the address in WebHook-Request-Callback") if callback_offered else Refused(why)


def _rate(said: Mapping[str, list[str]]) -> Consent:
    match said.get(_ALLOWED_RATE, []):
        case [] | ["*"]:
            return Granted(None)
        case [text] if _RATE.fullmatch(text):
            return Granted(int(text))
        case rates:
            return Refused(f"it permits a rate of {_shown(', '.join(rates))}; WebHook-Allowed-Rate must be a number a minute or {_ANY}")


def _shown(text: str) -> str:
    """Return what a sink has said, cut, and without anything that could be taken for more than text."""
    return ascii(text[:_SHOWN_CHARS_MAX])[:_SHOWN_CHARS_MAX]
