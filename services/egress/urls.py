"""URLs: parses the text of a URL so strictly that no two parsers can disagree on its host.

policy, http → [urls]

Law 1: a URL that is not clearly in a permitted form is refused; nothing is repaired.
Law 2: a host that is not a name must be an address in a notation that all parsers read alike.
"""

import re
import unicodedata
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address

URL_CHARS_MAX = 2048
PORTS = range(1, 65536)
DEFAULT_PORTS = {"http": 80, "https": 443}

_HOST_CHARS_MAX = 253
# Printable ASCII without the backslash. Nearly every URL matches, so this check comes first.
_PLAIN = re.compile(r"[!-\[\]-~]+")
_BRACKETED = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::(.*))?")
_PORT = re.compile(r"[1-9][0-9]{0,4}")
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
# Parsers that know the old C notations read a host as a number if its last label is a number.
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")


class UrlError(ValueError):
    """The URL is refused; the message is a sentence that says what to change."""


@dataclass(frozen=True, slots=True)
class Url:
    """The parts of a URL that the policy judges; `host` is a lower-case ASCII name, or an address."""

    scheme: str
    host: str | IPv4Address | IPv6Address
    port: int


def parse_url(url: str) -> Url:
    """Return scheme, host and port of an absolute http or https URL; raise `UrlError` for any other text."""
    _check_characters(url)
    scheme, separator, rest = url.partition("://")
    scheme = scheme.lower()
    if not separator or scheme not in DEFAULT_PORTS:
        raise UrlError("the URL must begin with https:// (or http://, if the operator allows it)")
    if "#" in rest:
        raise UrlError("the URL has a fragment (#…), which HTTP never sends; leave it out")
    authority = re.split(r"[/?]", rest, maxsplit=1)[0]
    if "@" in authority:
        raise UrlError("the URL has a user name or password before its host; remove it and use a credential")
    if "%" in authority:
        raise UrlError("the URL's host has a percent sign; write the host without escapes and without a zone")
    host, port = _split(authority)
    return Url(scheme, _address_or_name(host), DEFAULT_PORTS[scheme] if port is None else _port(port))


def _check_characters(url: str) -> None:
    if not url:
        raise UrlError("the URL is empty; write for example https://hooks.example.com/")
    if len(url) > URL_CHARS_MAX:
        message = f"the URL is longer than {URL_CHARS_MAX} characters; make it shorter"
        raise UrlError(message)
    if _PLAIN.fullmatch(url):
        return
    if any(character.isspace() or unicodedata.category(character) in {"Cc", "Cf", "Cs"} for character in url):
        raise UrlError("the URL has spaces or control characters; remove them, or percent-encode them after the host")
    if "\\" in url:
        raise UrlError("the URL has a backslash; write / instead")
    raise UrlError("the URL has characters beyond ASCII; write the host as punycode (xn--…) and percent-encode the rest")


def _split(authority: str) -> tuple[str, str | None]:
    """Return the host (an IPv6 address with its brackets), and the text of the port or None."""
    if authority.startswith("["):
        bracketed = _BRACKETED.fullmatch(authority)
        if bracketed is None:
            raise UrlError("the URL's host is not an IPv6 address in brackets; write for example [2606:4700::1111]")
        return f"[{bracketed[1]}]", bracketed[2]
    host, separator, port = authority.partition(":")
    if not host:
        raise UrlError("the URL has no host; write for example https://hooks.example.com/")
    return host.lower(), port if separator else None


def _port(text: str) -> int:
    if _PORT.fullmatch(text) is None or int(text) not in PORTS:
        message = f"the URL's port must be a number from {PORTS[0]} to {PORTS[-1]}, without leading zeros"
        raise UrlError(message)
    return int(text)


def _address_or_name(host: str) -> str | IPv4Address | IPv6Address:
    try:
        if host.startswith("["):
            return IPv6Address(host[1:-1])
        if _NUMBER.fullmatch(host.removesuffix(".").rpartition(".")[2]):
            return IPv4Address(host)
    except AddressValueError:
        raise UrlError(
            "the URL's host is a number or an address in an unusual notation; write a name, "
            "an IPv4 address as four decimal numbers, or an IPv6 address in brackets"
        ) from None
    _check_name(host)
    return host


def _check_name(host: str) -> None:
    if host.endswith("."):
        raise UrlError("the URL's host ends with a dot; remove the dot")
    labels = host.split(".")
    if len(host) > _HOST_CHARS_MAX or not all(_LABEL.fullmatch(label) for label in labels):
        raise UrlError(
            "the URL's host is not a valid name; write labels of 1 to 63 letters, digits and inner hyphens, joined by dots, at most "
            "253 characters in total"
        )
    for label in labels:
        if label.startswith("xn--") and not _is_punycode(label):
            message = f"the URL's host has the label {label}, which is not valid punycode"
            raise UrlError(message)


def _is_punycode(label: str) -> bool:
    """Return whether a label is valid punycode of characters that no parser folds into others, as circled digits into digits."""
    encoded = label.removeprefix("xn--")
    try:
        decoded = encoded.encode("ascii").decode("punycode")
    except UnicodeError:
        return False
    folded = unicodedata.normalize("NFKC", decoded)
    controls = any(unicodedata.category(character) == "Cc" for character in decoded)
    return not decoded.isascii() and not controls and folded == decoded and decoded.encode("punycode").decode("ascii") == encoded
