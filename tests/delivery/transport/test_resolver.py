"""Resolver: names are looked up beside the event loop, judged as a whole, and cached for a little while."""

import asyncio
import threading
from collections import Counter
from collections.abc import Sequence

import pytest

from services.delivery.transport.http import open_http_transport
from services.delivery.transport.protocol import Outcome
from services.delivery.transport.resolver import Lookup, Resolved, Resolver, system_lookup
from services.egress.policy import EgressPolicy
from services.runtime.fair_semaphore import Share
from tests.delivery.sending import LIMITS, LOOPBACK, answer_to, post, sending
from tests.support.webhook_receivers.hostile_receivers import OK, answering, black_hole, hostile


class Book:
    """A lookup with answers that tests change; it counts its calls, and a name may hang."""

    def __init__(self, **addresses: Sequence[str]) -> None:
        self.addresses = {name: list(found) for name, found in addresses.items()}
        self.asked: Counter[str] = Counter()
        self.hanging: dict[str, threading.Event] = {}

    def __call__(self, name: str) -> Sequence[str]:
        """Answer a lookup."""
        self.asked[name] += 1
        if name in self.hanging:
            self.hanging[name].wait(10)
        if name not in self.addresses:
            raise OSError(name)
        return self.addresses[name]

    def hang(self, name: str) -> threading.Event:
        """Let a name hang; return the event that releases it."""
        self.hanging[name] = threading.Event()
        return self.hanging[name]


def resolver_by(lookup: Lookup, *, timeout_s: float = 5.0, kept_s: float = 60.0) -> Resolver:
    return Resolver(lookup, EgressPolicy(allow=("127.0.0.0/8",)), timeout_s=timeout_s, kept_s=kept_s, share=Share(8, 2))


def asking(resolver: Resolver, name: str, owner: str = "") -> asyncio.Future[Resolved]:
    future: asyncio.Future[Resolved] = asyncio.get_running_loop().create_future()
    resolver.resolve(name, owner, future.set_result)
    return future


async def found_by(resolver: Resolver, name: str, owner: str = "") -> Resolved:
    return await asyncio.wait_for(asking(resolver, name, owner), 60)


async def test_a_name_is_looked_up_once_for_all_who_ask() -> None:
    book = Book(a=["127.0.0.1"])
    go_on = book.hang("a")
    resolver = resolver_by(book)
    waiting = [asking(resolver, "a") for _ in range(50)]
    go_on.set()

    assert set(await asyncio.gather(*waiting)) == {Resolved(("127.0.0.1",))}
    assert resolver.cached("a") == Resolved(("127.0.0.1",))
    assert book.asked["a"] == 1
    resolver.close()


async def test_what_was_found_is_used_for_a_while_only() -> None:
    resolver = resolver_by(Book(a=["127.0.0.1"]), kept_s=0.0)

    assert (await found_by(resolver, "a")).failure is None
    assert resolver.cached("a") is None
    resolver.close()


@pytest.mark.parametrize(
    ("addresses", "outcome"), [([], Outcome.BLOCKED), (["10.0.0.1"], Outcome.BLOCKED), (["127.0.0.1", "10.0.0.1"], Outcome.BLOCKED)]
)
async def test_a_name_is_judged_by_all_its_addresses(addresses: list[str], outcome: Outcome) -> None:
    resolver = resolver_by(Book(a=addresses))
    found = await found_by(resolver, "a")

    assert (found.addresses, found.failure) == ((), outcome)
    assert resolver.cached("a") == found, "a refusal is kept too"
    resolver.close()


async def test_a_name_that_does_not_exist_is_a_failure_of_dns() -> None:
    resolver = resolver_by(Book())

    assert (await found_by(resolver, "nobody")).failure is Outcome.DNS
    resolver.close()


async def test_a_fault_of_the_lookup_ends_this_one_alone() -> None:
    def faulty(name: str) -> Sequence[str]:
        if name == "a":
            raise RuntimeError
        return ["127.0.0.1"]

    resolver = resolver_by(faulty)
    assert "RuntimeError" in (await found_by(resolver, "a")).error
    assert (await found_by(resolver, "b")).failure is None
    resolver.close()


async def test_a_lookup_that_hangs_keeps_nobody_waiting_and_is_not_begun_again() -> None:
    book = Book(a=["127.0.0.1"])
    go_on = book.hang("a")
    resolver = resolver_by(book, timeout_s=0.1)

    first, second = await found_by(resolver, "a"), await found_by(resolver, "a")
    assert first.failure is second.failure is Outcome.DNS
    assert "in time" in first.error
    assert book.asked["a"] == 1

    go_on.set()
    async with asyncio.timeout(60):
        while resolver.cached("a") is None:  # noqa: ASYNC110 - a thread of its own makes it known
            await asyncio.sleep(0)
    assert resolver.cached("a") == Resolved(("127.0.0.1",))
    resolver.close()


async def test_names_that_hang_do_not_hold_up_those_that_were_found_before() -> None:
    book = Book(good=["127.0.0.1"], **{f"bad{number}": ["127.0.0.1"] for number in range(40)})
    resolver = resolver_by(book, kept_s=0.0)
    await found_by(resolver, "good")
    events = [book.hang(f"bad{number}") for number in range(40)]
    waiting = [asking(resolver, f"bad{number}") for number in range(40)]

    assert (await found_by(resolver, "good")).failure is None
    assert not any(future.done() for future in waiting)
    for event in events:
        event.set()
    await asyncio.gather(*waiting)
    resolver.close()


async def test_names_of_one_consumer_that_hang_hold_up_nobody_else() -> None:
    """Neither a new name of another consumer waits, nor a name that also waits in the first consumer's queue."""
    book = Book(**{f"bad{number}": ["127.0.0.1"] for number in range(64)}, good=["127.0.0.1"])
    resolver = resolver_by(book, timeout_s=0.5)
    events = [book.hang(f"bad{number}") for number in range(64)]
    hanging = [asking(resolver, f"bad{number}", "attacker") for number in range(64)]
    waiting = asking(resolver, "good", "attacker")

    assert (await found_by(resolver, "good", "victim")).failure is None
    assert (await waiting).failure is None
    assert sum(book.asked.values()) == 3, "the attacker's share, and the name that both wanted"
    assert {(await each).failure for each in hanging} == {Outcome.DNS}
    assert (await found_by(resolver, "other", "victim")).error == "the server's name could not be resolved"
    # A lookup that has not begun when its callers give up never runs.
    for event in events:
        event.set()
    async with asyncio.timeout(60):
        while resolver.cached("bad0") is None or resolver.cached("bad1") is None:  # noqa: ASYNC110 - threads make them known
            await asyncio.sleep(0)
    assert sum(book.asked.values()) == 4
    resolver.close()


async def test_too_many_names_of_one_consumer_are_refused_at_once() -> None:
    book = Book()
    resolver = resolver_by(book, timeout_s=60.0)
    events = [book.hang(name) for name in "ab"]
    waiting = [asking(resolver, name, "attacker") for name in [*"ab", *(f"n{number}" for number in range(2048))]]

    assert "too many of this consumer's names" in (await found_by(resolver, "one more", "attacker")).error
    assert (await found_by(resolver, "c", "victim")).failure is Outcome.DNS
    resolver.close()
    assert {(await each).failure for each in waiting} == {Outcome.RESET}
    for event in events:
        event.set()


async def test_the_address_in_use_stays_first_while_the_name_has_it() -> None:
    book = Book(a=["127.0.0.1", "127.0.0.2", "127.0.0.3"])
    resolver = resolver_by(book, kept_s=0.0)

    assert (await found_by(resolver, "a")).addresses == ("127.0.0.1", "127.0.0.2", "127.0.0.3")
    book.addresses["a"] = ["127.0.0.3", "127.0.0.1", "127.0.0.2"]
    assert (await found_by(resolver, "a")).addresses[0] == "127.0.0.1"
    resolver.prefer("a", "127.0.0.2")
    assert (await found_by(resolver, "a")).addresses[0] == "127.0.0.2"
    book.addresses["a"] = ["127.0.0.3", "127.0.0.1"]
    assert (await found_by(resolver, "a")).addresses == ("127.0.0.3", "127.0.0.1")
    resolver.close()


async def test_of_many_addresses_a_few_are_kept_of_both_families() -> None:
    many = [f"127.1.{number // 250}.{number % 250 + 1}" for number in range(1000)]
    resolver = Resolver(Book(a=[*many, "::1"]), EgressPolicy(allow=("127.0.0.0/8", "::1")), timeout_s=5.0, kept_s=0.0, share=Share(8, 2))
    found = await found_by(resolver, "a")
    assert found.addresses == (many[0], "::1", *many[1:15])

    resolver.defer("a", [many[0], "::1"])
    assert (await found_by(resolver, "a")).addresses[0] == many[1]
    resolver.close()


async def test_what_is_remembered_is_bounded() -> None:
    resolver = resolver_by(lambda _name: ["127.0.0.1"], timeout_s=60.0, kept_s=600.0)
    await asyncio.gather(*(asking(resolver, f"n{number}", str(number % 20)) for number in range(17_000)))

    kept = [number for number in range(17_000) if resolver.cached(f"n{number}") is not None]
    assert len(kept) == 16_384
    resolver.close()


async def test_the_end_is_told_to_those_who_wait() -> None:
    book = Book(a=["127.0.0.1"])
    go_on = book.hang("a")
    resolver = resolver_by(book)
    waiting = asking(resolver, "a")
    resolver.close()

    assert (await waiting).failure is Outcome.RESET
    go_on.set()


async def test_this_machines_resolver_finds_this_machine() -> None:
    assert set(system_lookup("localhost")) <= {"127.0.0.1", "::1"}


# With the transport


async def test_the_next_address_is_tried_where_one_cannot_be_reached() -> None:
    async with hostile(answering(OK), host="127.0.0.9") as server:
        book = Book(**{"two.example": ["127.0.0.8", "127.0.0.9"]})
        async with sending(lookup=book) as transport:
            answers = [await answer_to(transport, post(f"http://two.example:{server.port}/")) for _ in range(3)]

    assert {answer.outcome for answer in answers} == {Outcome.DELIVERED}
    assert server.connections == 1


async def test_a_name_whose_addresses_are_all_away_is_a_failure_to_connect() -> None:
    async with hostile(answering(OK), host="127.0.0.9") as server:
        gone = server.port
    async with sending(lookup=Book(**{"two.example": ["127.0.0.8", "127.0.0.9"]})) as transport:
        assert (await answer_to(transport, post(f"http://two.example:{gone}/"))).outcome is Outcome.CONNECT


async def test_of_a_name_with_a_thousand_addresses_a_few_are_dialled() -> None:
    """The next request dials other addresses."""
    refusing, dialled = [f"127.1.{number // 250}.{number % 250 + 1}" for number in range(1000)], list[str]()

    class Noting(EgressPolicy):
        def check_address(self, address: str) -> str | None:
            dialled.append(address)
            return super().check_address(address)

    async with hostile(answering(OK)) as server:
        gone = server.port
    async with open_http_transport(Noting(allow=LOOPBACK), LIMITS, lookup=Book(**{"many.example": refusing})) as transport:
        for _ in range(2):
            assert (await answer_to(transport, post(f"http://many.example:{gone}/"))).outcome is Outcome.CONNECT
    assert dialled == refusing[:6]


async def test_addresses_that_do_not_answer_share_the_time_for_connecting() -> None:
    """The last address that is tried is reached within that time."""
    async with (
        hostile(answering(OK), host="127.0.0.9") as server,
        black_hole("127.0.0.7", server.port),
        black_hole("127.0.0.8", server.port),
    ):
        book = Book(**{"three.example": ["127.0.0.7", "127.0.0.8", "127.0.0.9"]})
        async with sending(lookup=book, connect_timeout_s=1.5) as transport:
            assert (await answer_to(transport, post(f"http://three.example:{server.port}/"))).outcome is Outcome.DELIVERED
            began = asyncio.get_running_loop().time()
            book.addresses["away.example"] = ["127.0.0.7", "127.0.0.8"] * 2
            assert (await answer_to(transport, post(f"http://away.example:{server.port}/"))).outcome is Outcome.CONNECT
            assert asyncio.get_running_loop().time() - began < 2 * 1.5
