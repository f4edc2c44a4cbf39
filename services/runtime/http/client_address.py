"""Client address: which client sent a request, even through a proxy.

peer, `Forwarded`, `X-Forwarded-For` → [client_address] → limits and throttles by network

Law 1: pure.
Law 2: only a trusted peer's headers are used. They are read from right to left while the addresses are trusted too: the first address
that is not trusted is the client, and everything to the left of it may be the client's invention.
Law 3: a request whose headers are malformed, or name two different clients, counts as the proxy's own. A client gains nothing by such
headers, since it then shares one limit with all other clients that send them.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address

from services.runtime.authentication_throttle import network_of

Network = IPv4Network | IPv6Network

_HOPS_MAX = 32
# RFC 7239, 4: pairs of a token and a token or quoted string, separated by semicolons; elements are separated by commas.
_PAIR = re.compile(r"""\s*([!#$%&'*+.^_`|~0-9A-Za-z-]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s",;]*))\s*(;|,|$)""")
_QUOTED_PAIR = re.compile(r"\\(.)")
_WITH_PORT = re.compile(r"\[([0-9A-Fa-f:.%\w]+)\](?::[0-9]{1,5})?|([0-9.]+):[0-9]{1,5}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Client:
    """The client that a request counts against."""

    network: str
    """An IPv4 address, or the /64 of an IPv6 address."""
    is_proxied: bool
    """Whether a trusted proxy passed the request on, so that the connection is the proxy's."""


class TrustedProxies:
    """The peers whose `Forwarded` and `X-Forwarded-For` headers are used."""

    def __init__(self, networks: Iterable[Network], *, unix: bool = False) -> None:
        """Trust the addresses in `networks`, and, with `unix`, every peer of a Unix socket."""
        self._networks = tuple(networks)
        self._unix = unix

    def trusts(self, address: str) -> bool:
        """Return whether a peer is trusted; the address of a Unix socket's peer is empty."""
        if not address:
            return self._unix
        try:
            parsed = ip_address(address.partition("%")[0])
        except ValueError:
            return False
        if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is not None:
            parsed = parsed.ipv4_mapped
        return any(parsed in network for network in self._networks)

    def client(self, peer: str, forwarded: Sequence[str], x_forwarded_for: Sequence[str]) -> Client:
        """Return the client of a request from `peer`. The two headers are given as the values of all their lines, in order."""
        if not self.trusts(peer) or not (forwarded or x_forwarded_for):
            return Client(network_of(peer), is_proxied=False)
        named = {self._first_untrusted(peer, hops) for hops in (_forwarded(forwarded), _listed(x_forwarded_for)) if hops is not None}
        return Client(network_of(named.pop() if len(named) == 1 else peer), is_proxied=True)

    def _first_untrusted(self, peer: str, hops: Sequence[str]) -> str:
        """Return the first untrusted address of `hops`, read from the last; the farthest if all are trusted, `peer` if one is malformed."""
        nearest = peer
        for hop in hops[: -_HOPS_MAX - 1 : -1]:
            address = _address(hop)
            if address is None:
                return peer
            nearest = address
            if not self.trusts(address):
                break
        return nearest


def _forwarded(values: Sequence[str]) -> list[str] | None:
    """Return the `for` of each element of `Forwarded` (RFC 7239), "" if an element has none; None without the header."""
    if not values:
        return None
    text, at, hops, current = ",".join(values), 0, list[str](), ""
    while at < len(text):
        pair = _PAIR.match(text, at)
        if pair is None:
            return [*hops, ""]
        if pair[1].lower() == "for":
            current = _QUOTED_PAIR.sub(r"\1", pair[2]) if pair[2] is not None else pair[3]
        if pair[4] != ";":
            hops.append(current)
            current = ""
        at = pair.end()
    return hops


def _listed(values: Sequence[str]) -> list[str] | None:
    """Return the addresses of `X-Forwarded-For`, the nearest last; None without the header."""
    return [part.strip() for part in ",".join(values).split(",")] if values else None


def _address(hop: str) -> str | None:
    """Return the address of a hop, without port and brackets; None for anything else, such as ``unknown`` or ``_hidden``."""
    with_port = _WITH_PORT.fullmatch(hop)
    text = (with_port[1] or with_port[2]) if with_port is not None else hop
    try:
        return str(ip_address(text.partition("%")[0]))
    except ValueError:
        return None
