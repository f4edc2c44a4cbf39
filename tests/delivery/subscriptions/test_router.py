import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.delivery.model import SubscriptionStatus
from services.delivery.request.request_settings import RequestSettings, Subscription
from services.delivery.subscriptions.router import Router

segments = st.sampled_from(["order", "created", "eu", "a", "b-c", "_", "hooktide"])
names = st.lists(segments, min_size=1, max_size=4).map(".".join)
patterns = st.one_of(names, names.map(lambda name: f"{name}.*"), st.just("*"))
# Acceptance allows any text as a type: dots at the ends, dots in a row, and stars.
event_types = st.one_of(names, st.text(alphabet="ab.*", min_size=1, max_size=8))
consumers = st.sampled_from(["con_1", "con_2"])
sources = st.sampled_from(["", "/shop", "/bank"])

subscriptions = st.builds(
    Subscription,
    id=st.integers(0, 9).map(lambda number: f"sub_{number}"),
    consumer_id=consumers,
    sink=st.just("https://consumer.example"),
    types=st.lists(patterns, max_size=3).map(tuple),
    source=sources,
    status=st.sampled_from(SubscriptionStatus),
    revision=st.just(1),
    settings=st.just(RequestSettings()),
)
changes = st.lists(st.one_of(subscriptions, st.integers(0, 9).map(lambda number: f"sub_{number}")), max_size=25)


def wants(subscription: Subscription, event_type: str, source: str, audience: str) -> bool:
    """Return whether a subscription wants an event, by the words of the contract."""
    is_reserved = event_type.startswith("hooktide.")
    meets = any(
        pattern == event_type
        or (pattern == "*" and not is_reserved)
        or (pattern.endswith(".*") and event_type.startswith(pattern.removesuffix("*")))
        for pattern in subscription.types
    )
    return (
        subscription.status is not SubscriptionStatus.OFF
        and (meets or (not subscription.types and not is_reserved))
        and subscription.source in {"", source}
        and audience in {"", subscription.consumer_id}
    )


@given(changes, event_types, st.sampled_from(["/shop", "/bank", "/other"]), st.sampled_from(["", "con_1", "con_2", "con_3"]))
def test_an_event_is_routed_to_exactly_the_subscriptions_that_want_it(
    history: list[Subscription | str], event_type: str, source: str, audience: str
) -> None:
    """After any history of changes, each current subscription matches once, in the order of ids."""
    router = Router()
    known: dict[str, Subscription] = {}
    for change in history:
        if isinstance(change, str):
            assert router.remove(change) == known.pop(change, None)
        else:
            router.put(change)
            known[change.id] = change
    expected = [known[each] for each in sorted(known) if wants(known[each], event_type, source, audience)]
    for _ in range(2):
        assert router.match(event_type, source, audience) == tuple(expected)
    assert router.by_id == known


def test_what_is_removed_leaves_nothing_behind() -> None:
    """An index that kept empty entries would grow with every subscription that ever existed."""
    router = Router()
    subscription = Subscription(
        "sub_1", "con_1", "https://consumer.example", ("a.*", "a.*", "b"), "/shop", SubscriptionStatus.ACTIVE, 1, RequestSettings()
    )
    router.put(subscription)
    router.remove("sub_1")
    assert "sub_1" not in router.by_id
    assert router.match("b", "/shop", "") == ()
    assert not router._index  # noqa: SLF001 - what is asked for here shows nowhere else


def test_a_subscription_that_is_passed_by_matches_nothing_until_it_returns_also_in_the_next_router() -> None:
    """It may be deleted, or not be known yet, meanwhile."""

    def subscription(name: str) -> Subscription:
        return Subscription(name, "con_1", "https://consumer.example", ("a",), "", SubscriptionStatus.ACTIVE, 1, RequestSettings())

    def matched(router: Router) -> list[str]:
        return [each.id for each in router.match("a", "/shop", "")]

    former, router = Router([subscription("sub_1"), subscription("sub_2")]), Router([subscription("sub_1")])
    for name in ("sub_1", "sub_3"):
        former.pass_by(name)
    router.follow(former)
    assert (matched(former), matched(router)) == (["sub_2"], [])
    for name in ("sub_2", "sub_3"):
        router.put(subscription(name))
    assert matched(router) == ["sub_2"]
    router.return_to("sub_2")
    router.remove("sub_3")
    for name in ("sub_1", "sub_3"):
        router.return_to(name)
    assert (matched(router), router.passed_by) == (["sub_1", "sub_2"], set())


def test_what_was_asked_for_lately_is_known_again_and_bounded() -> None:
    router = Router()
    subscription = Subscription("sub_1", "con_1", "https://consumer.example", (), "", SubscriptionStatus.ACTIVE, 1, RequestSettings())
    assert router.match("a", "/shop", "") == ()
    router.put(subscription)
    assert router.match("a", "/shop", "") == (subscription,)
    assert router.match("a", "/shop", "") is router.match("a", "/shop", "")
    for number in range(5000):
        assert router.match(f"t{number}", "/shop", "") == (subscription,)
    assert len(router._matches) <= 1024  # noqa: SLF001 - what is asked for here shows nowhere else


def test_a_reserved_type_reaches_only_a_subscription_that_names_it() -> None:
    """A subscription without types, or to every type, gets none of Hooktide's own notices."""
    wanted = [(), ("*",), ("order.*", "*"), ("hooktide.delivery.*",), ("*", "hooktide.delivery.exhausted"), ("hooktide.subscription.*",)]
    router = Router(
        Subscription(f"sub_{number}", "con_1", "https://consumer.example", types, "", SubscriptionStatus.ACTIVE, 1, RequestSettings())
        for number, types in enumerate(wanted)
    )
    assert [each.id for each in router.match("hooktide.delivery.exhausted", "/x", "")] == ["sub_3", "sub_4"]


@pytest.mark.slow
def test_an_event_is_routed_in_milliseconds_among_a_million_subscriptions() -> None:
    """Of a million subscriptions that name other types, none is looked at: 99 of 100 events take less than 5 ms."""
    router, settings = Router(), RequestSettings()
    for number in range(1_000_000):
        types = ("shop.order.created",) if number < 10 else (f"shop.other{number}", f"other{number}.*")
        router.put(
            Subscription(f"sub_{number:032x}", "con_" + "0" * 32, "https://example.com/", types, "", SubscriptionStatus.ACTIVE, 1, settings)
        )
    took_s = []
    for _ in range(1000):
        began = time.perf_counter()
        found = router.search("shop.order.created", "/shop", "")
        took_s.append(time.perf_counter() - began)
        assert len(found) == 10
    assert sorted(took_s)[989] < 0.005
