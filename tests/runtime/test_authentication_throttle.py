import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.runtime.authentication_throttle import DELAY_MAX_S, AuthenticationThrottle, network_of


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::/64"),
        ("/run/hooktide.sock", "/run/hooktide.sock"),
        ("", ""),
    ],
)
def test_a_client_is_an_ipv4_address_or_an_ipv6_network(address: str, network: str) -> None:
    assert network_of(address) == network


def test_a_few_failures_are_answered_at_once_and_more_at_the_rate() -> None:
    throttle = AuthenticationThrottle(burst=3, per_second=2)
    assert [throttle.failed("a", 100.0) for _ in range(6)] == [0, 0, 0, 0.5, 1.0, 1.5]
    assert throttle.failed("b", 100.0) == 0
    assert throttle.is_throttled("a", 101.0)
    assert not throttle.is_throttled("b", 100.0)
    assert not throttle.is_throttled("a", 102.5)
    assert throttle.failed("a", 200.0) == 0


@given(st.lists(st.floats(0, 2), min_size=50, max_size=300), st.floats(0.5, 50), st.integers(1, 30))
def test_refusals_leave_no_faster_than_the_rate(rests_s: list[float], per_second: float, burst: int) -> None:
    """The failures may arrive in any way, as long as no refusal waits for the longest delay."""
    throttle, now_s = AuthenticationThrottle(burst=burst, per_second=per_second), 1000.0
    sent_s: list[float] = []
    for rest_s in rests_s:
        now_s += rest_s / per_second
        delay_s = throttle.failed("a", now_s)
        assert 0 <= delay_s <= DELAY_MAX_S
        if delay_s < DELAY_MAX_S:
            sent_s.append(now_s + delay_s)
    for index, first in enumerate(sent_s):
        window = [each for each in sent_s[index:] if each < first + 1]
        assert len(window) <= burst + per_second + 2


@given(st.lists(st.sampled_from("abcdef"), max_size=200))
def test_the_number_of_networks_is_bounded_and_the_oldest_is_forgotten(networks: list[str]) -> None:
    throttle = AuthenticationThrottle(burst=1, per_second=0.001, networks_max=3)
    recent: list[str] = []
    for network in networks:
        assert (throttle.failed(network, 0.0) > 0) is (network in recent)
        recent = [*[each for each in recent if each != network], network][-3:]
        assert all(throttle.is_throttled(each, 0.0) is (each in recent) for each in "abcdef")
