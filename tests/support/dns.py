"""DNS: a name server on this machine, a lookup that asks it, and one that finds nothing."""

import asyncio
import contextlib
import itertools
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import cast

from dnslib import AAAA, CNAME, QTYPE, RCODE, RR, A, DNSRecord

_ANSWER_WITHIN_S = 2.0
_LINKS_MAX = 8


def no_names(name: str) -> Sequence[str]:
    """Find no addresses for any name, at once; a machine's own resolver may take seconds for a name that nobody has."""
    raise OSError(name)


@dataclass(slots=True)
class Zone:
    """What the server answers, by name; tests change it as they run."""

    port: int = 0
    addresses: dict[str, Callable[[], list[str]]] = field(default_factory=dict)
    """For each name, a function that returns its addresses; the server calls it for each lookup."""
    aliases: dict[str, str] = field(default_factory=dict)
    silent: set[str] = field(default_factory=set)
    """Names that get no answer."""
    broken: set[str] = field(default_factory=set)
    """Names that get SERVFAIL."""
    lifetime_s: int = 86400
    asked: Counter[str] = field(default_factory=Counter)
    """How often each name was looked up."""

    def put(self, name: str, *addresses: str) -> str:
        """Give a name these addresses; return the name."""
        self.addresses[name] = lambda: list(addresses)
        return name

    def flip(self, name: str, *answers: list[str]) -> str:
        """Give a name other addresses at each lookup, and the last list from then on; return the name."""
        rest: Iterator[list[str]] = itertools.chain(answers, itertools.repeat(answers[-1]))
        self.addresses[name] = lambda: next(rest)
        return name

    def lookup(self, name: str) -> list[str]:
        """Ask the server as a resolver does, and follow aliases; raise `OSError` if there is no address."""
        self.asked[name] += 1
        found = [str(record.rdata) for kind in ("A", "AAAA") for record in self._ask(name, kind)]
        if not found:
            raise OSError(name)
        return found

    def _ask(self, name: str, kind: str) -> list[RR]:
        for _ in range(_LINKS_MAX):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
                asking.settimeout(_ANSWER_WITHIN_S)
                asking.sendto(DNSRecord.question(name, kind).pack(), ("127.0.0.1", self.port))
                answer = DNSRecord.parse(asking.recv(4096))
            found = [record for record in answer.rr if record.rtype == getattr(QTYPE, kind)]
            alias = next((record for record in answer.rr if record.rtype == QTYPE.CNAME), None)
            if found or alias is None or answer.header.rcode != RCODE.NOERROR:
                return found
            name = str(alias.rdata).rstrip(".")
        raise OSError(name)


class _Server(asyncio.DatagramProtocol):
    def __init__(self, zone: Zone) -> None:
        self._zone = zone
        self._pair: dict[str, list[str]] = {}
        self._transport: asyncio.DatagramTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, client: tuple[str, int]) -> None:
        question = DNSRecord.parse(data)
        name, kind = str(question.q.qname).rstrip("."), QTYPE[question.q.qtype]
        if name in self._zone.silent:
            return
        answer, lifetime_s = question.reply(), self._zone.lifetime_s
        if name in self._zone.broken:
            answer.header.rcode = RCODE.SERVFAIL
        elif name in self._zone.aliases:
            answer.add_answer(RR(name, QTYPE.CNAME, rdata=CNAME(self._zone.aliases[name]), ttl=lifetime_s))
        elif name not in self._zone.addresses:
            answer.header.rcode = RCODE.NXDOMAIN
        else:
            # A lookup asks for A first, then for AAAA: both answers come from the same list.
            if kind == "A":
                self._pair[name] = self._zone.addresses[name]()
            for address in self._pair[name]:
                if (":" in address) == (kind == "AAAA"):
                    packed = tuple(ip_address(address).packed)
                    rdata = AAAA(packed) if kind == "AAAA" else A(packed)
                    answer.add_answer(RR(name, question.q.qtype, rdata=rdata, ttl=lifetime_s))
        self._transport.sendto(answer.pack(), client)


@contextlib.asynccontextmanager
async def name_server() -> AsyncIterator[Zone]:
    """Run a name server."""
    zone = Zone()
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(lambda: _Server(zone), local_addr=("127.0.0.1", 0))
    zone.port = transport.get_extra_info("sockname")[1]
    try:
        yield zone
    finally:
        transport.close()
