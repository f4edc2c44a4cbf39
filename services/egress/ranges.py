"""Ranges: finds the special range that contains an address.

policy → [ranges]

Sources: the IANA special-purpose registries of IPv4 and IPv6, and the documents that the rows name.
Law 1: an IPv4 address is public unless a row contains it.
Law 2: an IPv6 address is public only if it is global unicast (2000::/3) and no row contains it. So a future kind of address is refused
rather than dialled.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class SpecialRange:
    """A range that is not public, its purpose, and the document that defines it."""

    network: Network
    purpose: str
    source: str


def _table(*rows: tuple[str, str, str]) -> tuple[SpecialRange, ...]:
    return tuple(SpecialRange(ip_network(network), purpose, source) for network, purpose, source in rows)


IPV4_SPECIAL = _table(
    ("0.0.0.0/8", "this network", "RFC 791"),
    ("10.0.0.0/8", "private use", "RFC 1918"),
    ("100.64.0.0/10", "shared by carriers", "RFC 6598"),
    ("127.0.0.0/8", "loopback", "RFC 1122"),
    # Azure serves its platform services to a virtual machine at this address; the registries do not list it.
    ("168.63.129.16/32", "internal services of a cloud platform", "Azure documentation"),
    ("169.254.0.0/16", "link-local", "RFC 3927"),
    ("172.16.0.0/12", "private use", "RFC 1918"),
    ("192.0.0.0/24", "protocol assignments", "RFC 6890"),
    ("192.0.2.0/24", "documentation", "RFC 5737"),
    ("192.31.196.0/24", "AS112", "RFC 7535"),
    ("192.52.193.0/24", "multicast tunnelling", "RFC 7450"),
    ("192.88.99.0/24", "6to4 relay", "RFC 7526"),
    ("192.168.0.0/16", "private use", "RFC 1918"),
    ("192.175.48.0/24", "AS112", "RFC 7534"),
    ("198.18.0.0/15", "benchmarking", "RFC 2544"),
    ("198.51.100.0/24", "documentation", "RFC 5737"),
    ("203.0.113.0/24", "documentation", "RFC 5737"),
    ("224.0.0.0/4", "multicast", "RFC 5771"),
    # This row must precede the range that contains it: the first row that contains an address names the address.
    ("255.255.255.255/32", "broadcast", "RFC 919"),
    ("240.0.0.0/4", "reserved", "RFC 1112"),
)

IPV6_SPECIAL = _table(
    ("::1/128", "loopback", "RFC 4291"),
    ("::/128", "unspecified", "RFC 4291"),
    ("::ffff:0:0/96", "IPv4-mapped", "RFC 4291"),
    ("::ffff:0:0:0/96", "IPv4-translated", "RFC 2765"),
    ("::/96", "IPv4-compatible", "RFC 4291"),
    ("64:ff9b::/96", "IPv4 translation, NAT64", "RFC 6052"),
    ("64:ff9b:1::/48", "local IPv4 translation, NAT64", "RFC 8215"),
    ("100::/64", "discard-only", "RFC 6666"),
    ("100:0:0:1::/64", "dummy prefix", "RFC 9780"),
    ("2001::/32", "Teredo", "RFC 4380"),
    ("2001::/23", "protocol assignments", "RFC 2928"),
    ("2001:db8::/32", "documentation", "RFC 3849"),
    ("2002::/16", "6to4", "RFC 3056"),
    ("2620:4f:8000::/48", "AS112", "RFC 7534"),
    ("3fff::/20", "documentation", "RFC 9637"),
    ("5f00::/16", "segment routing", "RFC 9602"),
    ("fc00::/7", "unique local", "RFC 4193"),
    ("fe80::/10", "link-local", "RFC 4291"),
    ("fec0::/10", "site-local", "RFC 3879"),
    ("ff00::/8", "multicast", "RFC 4291"),
)

_GLOBAL_UNICAST = IPv6Network("2000::/3")
_NOT_GLOBAL_UNICAST = SpecialRange(IPv6Network("::/0"), "not global unicast", "RFC 4291")

_IPV4_IS_LAST = tuple(IPv6Network(network) for network in ("::ffff:0:0/96", "::ffff:0:0:0/96", "::/96", "64:ff9b::/96"))
_NAT64_LOCAL = IPv6Network("64:ff9b:1::/48")
_TEREDO = IPv6Network("2001::/32")
_SIX_TO_FOUR = IPv6Network("2002::/16")
_IPV4_MASK = 0xFFFFFFFF


def special_range(address: Address) -> SpecialRange | None:
    """Return the special range that contains an address, or None if the address is public. A zone (`%eth0`) is ignored."""
    table = IPV4_SPECIAL if address.version == 4 else IPV6_SPECIAL  # noqa: PLR2004 - the version is its own name
    for row in table:
        if address in row.network:
            return row
    if isinstance(address, IPv6Address) and address not in _GLOBAL_UNICAST:
        return _NOT_GLOBAL_UNICAST
    return None


def embedded(address: Address) -> Iterator[IPv4Address]:
    """Yield the IPv4 addresses to which, or through which, a packet to an IPv6 address may go."""
    if isinstance(address, IPv4Address):
        return
    number = int(address)
    low = number & _IPV4_MASK
    if address in _SIX_TO_FOUR:
        yield IPv4Address((number >> 80) & _IPV4_MASK)
    elif address in _TEREDO:
        yield IPv4Address((number >> 64) & _IPV4_MASK)
        yield IPv4Address(low ^ _IPV4_MASK)
    elif address in _NAT64_LOCAL:
        # RFC 6052 lets a network choose the position of the IPv4 address in this prefix; these are the positions for /96 and /48.
        by_48 = ((number >> 64) & 0xFFFF) << 16 | (number >> 40) & 0xFFFF
        yield from (IPv4Address(found) for found in (low, by_48) if found or low == by_48)
    elif any(address in network for network in _IPV4_IS_LAST) and number > 1:
        yield IPv4Address(low)
