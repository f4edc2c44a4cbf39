"""Policy: decides whether a URL may be a sink, and whether an address may be dialled.

create or update a subscription → [URL check] … attempt → lookup → [address check] → dial

Law 1: an address is judged each time Hooktide dials it; an earlier verdict on the address or its name does not count.
Law 2: the operator's `deny` list applies first, then the `allow` list, then the table of special ranges.
Law 3: if an IPv6 address embeds an IPv4 address, both are judged.
"""

import functools
from collections.abc import Callable, Collection, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from services.egress.ranges import embedded, special_range
from services.egress.urls import PORTS, UrlError, parse_url

# Ports of protocols that may read the lines of an HTTP request as commands: the Fetch standard's "bad ports", which browsers refuse
# too, and those of Redis and memcached. The list is fixed, so that a sink cannot make Hooktide talk to a mail server or a cache.
PORTS_DENIED = frozenset(
    {
        *(1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102, 103, 104, 109, 110, 111),
        *(113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465, 512, 513, 514, 515, 526, 530, 531, 532, 540, 548),
        *(554, 556, 563, 587, 601, 636, 989, 990, 993, 995, 1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6379),
        *(6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080, 11211),
    }
)

_HTTP = "http"
_LOOPBACKS = ("127.0.0.1", "::1")
_JUDGED_MAX = 4096

_Network = IPv4Network | IPv6Network


class EgressPolicy:
    """What webhooks, and calls made for webhooks, may reach. Only `replace` changes it; threads may share it.

    `allow` and `deny` are address ranges (``10.0.0.0/8``, ``::1``). `allow` also accepts the word ``http``; without it only https is
    permitted. If `ports` is given, only those ports are permitted; else all from 1 to 65535 except `PORTS_DENIED`. Any other value
    raises `ValueError`.
    """

    def __init__(self, allow: Sequence[str] = (), deny: Sequence[str] = (), ports: Collection[int] = ()) -> None:
        self._rules = _Rules(allow, deny, ports)
        self._changed: list[Callable[[], None]] = []

    def replace(self, other: "EgressPolicy") -> None:
        """Permit from now on what another policy permits, and call every function registered with `on_change`."""
        self._rules = other._rules  # noqa: SLF001 - of its own class
        for changed in self._changed:
            changed()

    def on_change(self, changed: Callable[[], None]) -> None:
        """Call `changed` after each change, so that a caller can drop cached verdicts."""
        self._changed.append(changed)

    def check_url(self, url: str) -> str | None:
        """Return None if the text of `url` permits it as a sink; else a sentence that says what to change.

        No name is looked up here: the caller must judge each of its addresses by `check_address` when it dials the address.
        """
        try:
            parsed = parse_url(url)
        except UrlError as error:
            return str(error)
        rules = self._rules
        if parsed.scheme == _HTTP and not rules.http_allowed:
            return "the URL must begin with https://; http is not allowed here"
        if parsed.port not in (rules.ports or PORTS) or (not rules.ports and parsed.port in PORTS_DENIED):
            return f"the URL's port {parsed.port} is not allowed; use another port, for example 443"
        return self._check_host(parsed.host)

    def check_address(self, address: str) -> str | None:
        """Return None if an address (without brackets; a zone is allowed) may be dialled; else why not, in a sentence."""
        why = self._rules.why_not(address)
        return None if why is None else f"the address {address} is {why}; use a public address"

    def check_addresses(self, addresses: Sequence[str]) -> str | None:
        """Return None if every address that a name resolves to may be dialled; else why not, in a sentence.

        Consumers read this sentence, so it is the same for a private, a special and a denied address: a sentence that named the
        range would let a consumer map the operator's network through our resolver. `explain_addresses` is for the log.
        """
        if not addresses:
            return "the host's name has no address in DNS; check the name"
        why_not = self._rules.why_not
        refused = any(why_not(address) is not None for address in addresses)
        return "the host's name resolves to an address that is not allowed; let it resolve to public addresses only" if refused else None

    def explain_addresses(self, addresses: Sequence[str]) -> str:
        """Return for the operator's log which of a name's addresses may not be dialled, and why; empty if all of them may."""
        why_not = self._rules.why_not
        reasons = ((address, why_not(address)) for address in addresses)
        return "; ".join(f"{address} is {why}" for address, why in reasons if why is not None)

    def _check_host(self, host: str | IPv4Address | IPv6Address) -> str | None:
        if not isinstance(host, str):
            return self.check_address(str(host))
        if host == "localhost" or host.endswith(".localhost"):
            refusals = [self.check_address(loopback) for loopback in _LOOPBACKS]
            return None if None in refusals else refusals[0]
        return None


class _Rules:
    """What a policy permits at one moment. Immutable, except for its cache of verdicts."""

    def __init__(self, allow: Sequence[str], deny: Sequence[str], ports: Collection[int]) -> None:
        self.http_allowed = any(word.lower() == _HTTP for word in allow)
        self.ports = frozenset(ports)
        self._allowed = tuple(_range(word, word_too=True) for word in allow if word.lower() != _HTTP)
        self._denied = tuple(_range(word, word_too=False) for word in deny)
        wrong = sorted(port for port in self.ports if port not in PORTS)
        if wrong:
            message = f"{wrong[0]} is not a port; write a number from {PORTS[0]} to {PORTS[-1]}"
            raise ValueError(message)
        self.why_not = functools.lru_cache(_JUDGED_MAX)(self._judge)

    def _judge(self, text: str) -> str | None:
        """Return why an address is forbidden, as the predicate of a sentence; None if it is permitted."""
        try:
            address = ip_address(text)
        except ValueError:
            return "not an IP address"
        if isinstance(address, IPv6Address) and address.scope_id is not None:
            if not address.is_link_local:
                return "an address with a zone that is not link-local"
            address = IPv6Address(int(address))
        for judged in (address, *embedded(address)):
            why = self._judge_one(judged)
            if why is not None:
                return why
        return None

    def _judge_one(self, address: IPv4Address | IPv6Address) -> str | None:
        denied = next((network for network in self._denied if address in network), None)
        if denied is not None:
            return f"in {denied}, which the operator does not allow"
        if any(address in network for network in self._allowed):
            return None
        special = special_range(address)
        return None if special is None else f"in {special.network} ({special.purpose}, {special.source}), which is not allowed"


def _range(text: str, *, word_too: bool) -> _Network:
    try:
        return ip_network(text)
    except ValueError:
        pass
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        message = f"{text!r} is not an address range{' or the word http' if word_too else ''}; write for example 127.0.0.0/8"
        raise ValueError(message) from None
    message = f"{text!r} is an address with a prefix length; write {network} for the range, or the address alone"
    raise ValueError(message)
