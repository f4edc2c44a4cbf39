from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.runtime.http.client_address import Client, TrustedProxies

PROXIES = TrustedProxies([ip_network("10.0.0.0/8"), ip_network("2001:db8:ffff::/48")])
PROXY = "10.0.0.1"
CLIENT = "192.0.2.7"


def proxied(network: str) -> Client:
    return Client(network, is_proxied=True)


@pytest.mark.parametrize(
    ("forwarded", "network"),
    [
        ([f"for={CLIENT}"], CLIENT),
        ([f"For={CLIENT}:4711;proto=https;by=10.0.0.1"], CLIENT),
        ([f'for="{CLIENT}:4711"'], CLIENT),
        (['proto=https ; for="[2001:db8:1:2:3::4]:80"'], "2001:db8:1:2::/64"),
        (['for="\\[2001:db8:1:2:3::4\\]"'], "2001:db8:1:2::/64"),
        ([f"for=198.51.100.1, for={CLIENT}"], CLIENT),
        (["for=198.51.100.1", f"for={CLIENT};host=a, for=10.1.1.1"], CLIENT),
        ([f'for={CLIENT};host="a,for=198.51.100.1"'], CLIENT),
        (["for=10.3.3.3"], "10.3.3.3"),
        (["for=unknown"], PROXY),
        (["for=_hidden, for=10.1.1.1"], PROXY),
        (["proto=https"], PROXY),
        (["for"], PROXY),
        ([f"for={CLIENT}, nonsense"], PROXY),
        ([f'for="{CLIENT}'], PROXY),
        ([""], PROXY),
    ],
)
def test_a_trusted_peer_s_forwarded_header_names_the_client(forwarded: list[str], network: str) -> None:
    assert PROXIES.client(PROXY, forwarded, []) == proxied(network)


@pytest.mark.parametrize(
    ("x_forwarded_for", "network"),
    [
        ([CLIENT], CLIENT),
        ([f"198.51.100.1, {CLIENT}"], CLIENT),
        ([f"1.1.1.1,{CLIENT}", "10.2.2.2, 2001:db8:ffff::1"], CLIENT),
        ([f"{CLIENT}:5000"], CLIENT),
        (["[2001:db8:1:2::9]:5000"], "2001:db8:1:2::/64"),
        (["::ffff:192.0.2.7"], CLIENT),
        (["unknown"], PROXY),
        ([f"{CLIENT}, "], PROXY),
        (["10.2.2.2, 10.3.3.3"], "10.2.2.2"),
    ],
)
def test_so_does_x_forwarded_for(x_forwarded_for: list[str], network: str) -> None:
    assert PROXIES.client(PROXY, [], x_forwarded_for) == proxied(network)


def test_an_untrusted_peer_s_headers_mean_nothing() -> None:
    assert PROXIES.client(CLIENT, ["for=198.51.100.1"], ["198.51.100.1"]) == Client(CLIENT, is_proxied=False)
    assert TrustedProxies([]).client(PROXY, ["for=198.51.100.1"], []) == Client(PROXY, is_proxied=False)


def test_two_headers_that_disagree_count_as_the_proxy_s_own() -> None:
    """A proxy that sets one of the headers passes the other on as the client wrote it."""
    assert PROXIES.client(PROXY, ["for=198.51.100.1"], [CLIENT]) == proxied(PROXY)
    assert PROXIES.client(PROXY, [f"for={CLIENT}"], [f"1.2.3.4, {CLIENT}"]) == proxied(CLIENT)


def test_a_peer_of_a_unix_socket_is_trusted_only_if_told() -> None:
    assert TrustedProxies([]).client("", [], [CLIENT]) == Client("", is_proxied=False)
    assert TrustedProxies([], unix=True).client("", [], [CLIENT]) == proxied(CLIENT)


@given(st.text(), st.text())
def test_whatever_a_client_writes_in_front_of_its_address_is_ignored(before: str, line: str) -> None:
    assert PROXIES.client(PROXY, [], [line, f"{before}, {CLIENT}"]) == proxied(CLIENT)


@given(st.text())
def test_a_forwarded_header_of_any_text_is_survived(text: str) -> None:
    assert PROXIES.client(PROXY, [text], []).is_proxied
