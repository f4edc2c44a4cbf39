"""Verification protocol: builds the request that asks a sink for its consent, and interprets the answer.

sink_verification → [verification_protocol] → transport → [verification_protocol] → registry

Law 1: pure.
Law 2: only the answer's headers can express consent, never its status: any server answers OPTIONS somehow.
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
"""The prefix, in lower case, of the answer's headers that matter here."""
_ALLOWED_ORIGIN = "webhook-allowed-origin"
_ALLOWED_RATE = "webhook-allowed-rate"


class Granted(NamedTuple):
    """The sink consents; `rate_per_minute` is None if the sink sets no limit."""

    rate_per_minute: int | None


class Pending(NamedTuple):
    """The sink has not answered the question; it may still consent by a call to the callback URL."""

    why: str


class Refused(NamedTuple):
    """The sink does not consent; `why` is a clause for the subscription's owner."""

    why: str


class Unanswered(NamedTuple):
    """The sink gave no answer; `why` is a sentence."""

    why: str


Consent = Granted | Pending | Refused
Verification = Consent | Unanswered
"""The result of a verification."""


def request_headers(origin: str, *, callback_url: str = "", rate_per_second: float | None = None) -> dict[str, str]:
    """Return the headers of the request for consent; an empty `callback_url` is not offered."""
    headers = origin_headers(origin)
    if callback_url:
        headers["webhook-request-callback"] = callback_url
    if rate_per_second is not None:
        headers["webhook-request-rate"] = str(max(1, math.ceil(rate_per_second * 60)))
    return headers


def callback_url(public_url: str, token: str) -> str:
    """Return the URL at which a sink may consent later; "" if the gateway's URL is not known."""
    return f"{public_url}{CALLBACK_PATH}{token}" if public_url else ""


def consent(headers: Iterable[tuple[str, str]], origin: str, *, callback_offered: bool) -> Consent:
    """Return what a sink's answer means, whatever its status. `headers` may have names in any case, and a name more than once."""
    said: dict[str, list[str]] = {}
    for name, value in headers:
        said.setdefault(name.lower(), []).append(value.strip(" \t"))
    origins = said.get(_ALLOWED_ORIGIN, [])
    if not origins:
        return _silent(callback_offered=callback_offered)
    if len(origins) > 1 or origins[0].lower() not in {_ANY, origin.lower()}:
        return Refused(f"the sink's WebHook-Allowed-Origin is {_shown(', '.join(origins))}; it must be {origin} or {_ANY}")
    return _rate(said)


def _silent(*, callback_offered: bool) -> Consent:
    why = "the sink's answer to OPTIONS has no WebHook-Allowed-Origin"
    return (
        Pending(f"{why}; the sink may still consent by a call to the URL in WebHook-Request-Callback") if callback_offered else Refused(why)
    )


def _rate(said: Mapping[str, list[str]]) -> Consent:
    match said.get(_ALLOWED_RATE, []):
        case [] | ["*"]:
            return Granted(None)
        case [text] if _RATE.fullmatch(text):
            return Granted(int(text))
        case rates:
            return Refused(
                f"the sink's WebHook-Allowed-Rate is {_shown(', '.join(rates))}; it must be a number of requests a minute, or {_ANY}"
            )


def _shown(text: str) -> str:
    """Return a sink's text, cut to 100 characters, quoted, and with every unprintable or non-ASCII character escaped."""
    return ascii(text[:_SHOWN_CHARS_MAX])[:_SHOWN_CHARS_MAX]
