import pytest

from services.egress.policy import PORTS_DENIED, EgressPolicy

PUBLIC_ADDRESSES = [
    "1.1.1.1",
    "8.8.8.8",
    "9.255.255.255",
    "11.0.0.0",
    "93.184.216.34",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.0",
    "168.63.129.15",
    "168.63.129.17",
    "169.253.255.255",
    "169.255.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "192.0.1.0",
    "192.88.98.255",
    "192.167.255.255",
    "198.17.255.255",
    "198.20.0.0",
    "223.255.255.255",
    "2000::1",
    "2001:200::1",
    "2001:4860:4860::8888",
    "2606:4700:4700::1111",
    "2620:4f:7fff::1",
    "2a00:1450:4001:81b::200e",
    "3ffe::1",
    "3fff:1000::1",
]

# Each address comes with the range that the refusal must name, so that no address is refused for the wrong reason.
SPECIAL_ADDRESSES = [
    ("0.0.0.0", "0.0.0.0/8"),  # noqa: S104 - judged, not listened on
    ("0.1.2.3", "0.0.0.0/8"),
    ("10.0.0.0", "10.0.0.0/8"),
    ("10.255.255.255", "10.0.0.0/8"),
    ("100.64.0.1", "100.64.0.0/10"),
    ("100.100.100.200", "100.64.0.0/10"),
    ("100.127.255.255", "100.64.0.0/10"),
    ("127.0.0.1", "127.0.0.0/8"),
    ("127.1.2.3", "127.0.0.0/8"),
    ("127.255.255.255", "127.0.0.0/8"),
    ("168.63.129.16", "168.63.129.16/32"),
    ("169.254.0.1", "169.254.0.0/16"),
    ("169.254.169.254", "169.254.0.0/16"),
    ("172.16.0.1", "172.16.0.0/12"),
    ("172.31.255.255", "172.16.0.0/12"),
    ("192.0.0.8", "192.0.0.0/24"),
    ("192.0.0.9", "192.0.0.0/24"),
    ("192.0.0.170", "192.0.0.0/24"),
    ("192.0.0.192", "192.0.0.0/24"),
    ("192.0.2.1", "192.0.2.0/24"),
    ("192.31.196.1", "192.31.196.0/24"),
    ("192.52.193.1", "192.52.193.0/24"),
    ("192.88.99.1", "192.88.99.0/24"),
    ("192.168.0.1", "192.168.0.0/16"),
    ("192.175.48.1", "192.175.48.0/24"),
    ("198.18.0.1", "198.18.0.0/15"),
    ("198.19.255.255", "198.18.0.0/15"),
    ("198.51.100.7", "198.51.100.0/24"),
    ("203.0.113.9", "203.0.113.0/24"),
    ("224.0.0.1", "224.0.0.0/4"),
    ("239.255.255.250", "224.0.0.0/4"),
    ("240.0.0.1", "240.0.0.0/4"),
    ("255.255.255.255", "255.255.255.255/32"),
    ("::", "::/128"),
    ("::1", "::1/128"),
    ("0:0:0:0:0:0:0:1", "::1/128"),
    ("::127.0.0.1", "::/96"),
    ("::8.8.8.8", "::/96"),
    ("::ffff:127.0.0.1", "::ffff:0:0/96"),
    ("::ffff:7f00:1", "::ffff:0:0/96"),
    ("::ffff:8.8.8.8", "::ffff:0:0/96"),
    ("::ffff:169.254.169.254", "::ffff:0:0/96"),
    ("::ffff:0:127.0.0.1", "::ffff:0:0:0/96"),
    ("64:ff9b::a9fe:a9fe", "64:ff9b::/96"),
    ("64:ff9b::8.8.8.8", "64:ff9b::/96"),
    ("64:ff9b:1::10.0.0.1", "64:ff9b:1::/48"),
    ("64:ff9b:1:a00:0:100::", "64:ff9b:1::/48"),
    ("100::1", "100::/64"),
    ("100:0:0:1::1", "100:0:0:1::/64"),
    ("2001::1", "2001::/32"),
    ("2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001::/32"),
    ("2001:2::1", "2001::/23"),
    ("2001:20::1", "2001::/23"),
    ("2001:1ff:ffff::1", "2001::/23"),
    ("2001:db8::1", "2001:db8::/32"),
    ("2002:7f00:1::", "2002::/16"),
    ("2002:808:808::1", "2002::/16"),
    ("2620:4f:8000::1", "2620:4f:8000::/48"),
    ("3fff::1", "3fff::/20"),
    ("3fff:fff:ffff::1", "3fff::/20"),
    ("4000::1", "::/0"),
    ("1fff::1", "::/0"),
    ("200::1", "::/0"),
    ("5f00::1", "5f00::/16"),
    ("fc00::1", "fc00::/7"),
    ("fd00:ec2::254", "fc00::/7"),
    ("fe80::1", "fe80::/10"),
    ("fe80::1%eth0", "fe80::/10"),
    ("fe80::a9fe:a9fe%1", "fe80::/10"),
    ("fec0::1", "fec0::/10"),
    ("ff02::1", "ff00::/8"),
    ("ff0e::1", "ff00::/8"),
]

NOT_ADDRESSES = [
    "",
    "localhost",
    "127.1",
    "2130706433",
    "0x7f.0.0.1",
    "0177.0.0.1",
    "127.0.0.1 ",
    "[::1]",
    "1.2.3.4/32",
    "::1%",
    "1.2.3.4:80",
]

REFUSED_HOSTS = [
    "127.0.0.1",
    "10.1.2.3",
    "169.254.169.254",
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
    "[::]",
    "[::ffff:127.0.0.1]",
    "[::FFFF:A9FE:A9FE]",
    "[64:ff9b::a9fe:a9fe]",
    "[2002:7f00:1::]",
    "[fd00:ec2::254]",
    "localhost",
    "LOCALHOST",
    "a.localhost",
    "a.b.LocalHost",
]


@pytest.mark.parametrize("address", PUBLIC_ADDRESSES)
def test_a_public_address_may_be_dialled(address: str) -> None:
    host = f"[{address}]" if ":" in address else address

    assert EgressPolicy().check_address(address) is None
    assert EgressPolicy().check_url(f"https://{host}/hook") is None


@pytest.mark.parametrize(("address", "network"), SPECIAL_ADDRESSES)
def test_a_special_address_is_refused_by_its_own_range(address: str, network: str) -> None:
    why = EgressPolicy().check_address(address)

    assert why is not None
    assert f"in {network} (" in why


@pytest.mark.parametrize("text", NOT_ADDRESSES)
def test_what_is_no_address_is_never_dialled(text: str) -> None:
    assert "not an IP address" in (EgressPolicy(allow=["0.0.0.0/0", "::/0"]).check_address(text) or "")


@pytest.mark.parametrize("host", REFUSED_HOSTS)
def test_a_host_that_denotes_a_special_address_is_refused_in_the_url(host: str) -> None:
    assert EgressPolicy(allow=["http"]).check_url(f"http://{host}:8080/hook") is not None


def test_a_zone_is_refused_on_an_address_that_has_none() -> None:
    assert "zone" in (EgressPolicy().check_address("2606:4700:4700::1111%eth0") or "")


def test_the_word_http_allows_the_scheme_and_no_address() -> None:
    url = "http://example.com/hook"

    assert "https://" in (EgressPolicy().check_url(url) or "")
    assert EgressPolicy(allow=["http"]).check_url(url) is None
    assert EgressPolicy(allow=["HTTP"]).check_url("http://127.0.0.1/hook") is not None


def test_an_allowed_range_is_an_exception_for_just_its_addresses() -> None:
    policy = EgressPolicy(allow=["127.0.0.0/8", "10.1.0.0/16"])

    assert policy.check_address("127.0.0.1") is None
    assert policy.check_address("10.1.255.255") is None
    assert policy.check_address("10.2.0.0") is not None
    assert policy.check_address("::1") is not None
    assert policy.check_address("::ffff:127.0.0.1") is not None


@pytest.mark.parametrize(("allowed", "address"), [("127.0.0.0/8", "127.0.0.1"), ("::1", "::1")])
def test_localhost_is_judged_as_the_loopback_addresses(allowed: str, address: str) -> None:
    policy = EgressPolicy(allow=[allowed])

    assert policy.check_address(address) is None
    assert policy.check_url("https://localhost:8443/hook") is None
    assert policy.check_url("https://a.localhost:8443/hook") is None


@pytest.mark.parametrize(
    ("allowed", "address"),
    [
        ("::ffff:0:0/96", "::ffff:10.0.0.1"),
        ("::ffff:0:0:0/96", "::ffff:0:10.0.0.1"),
        ("::/0", "::10.0.0.1"),
        ("64:ff9b::/96", "64:ff9b::169.254.169.254"),
        ("64:ff9b:1::/48", "64:ff9b:1::10.0.0.1"),
        ("64:ff9b:1::/48", "64:ff9b:1:a00:0:100::"),
        ("64:ff9b:1::/48", "64:ff9b:1:a00:0:100:808:808"),
        ("64:ff9b:1::/48", "64:ff9b:1::"),
        ("2002::/16", "2002:7f00:1::1"),
        ("2002::/16", "2002:a9fe:a9fe::"),
        ("2001::/32", "2001:0:a00:1::f7f7:f7f7"),
        ("2001::/32", "2001:0:808:808::80ff:fffe"),
    ],
)
def test_an_allowed_ipv6_range_does_not_open_the_ipv4_addresses_within(allowed: str, address: str) -> None:
    """The IPv4 address to which a translator or tunnel would connect is judged as if it were dialled."""
    assert EgressPolicy(allow=[allowed]).check_address(address) is not None


@pytest.mark.parametrize(
    ("allowed", "address"),
    [
        ("::ffff:0:0/96", "::ffff:8.8.8.8"),
        ("64:ff9b::/96", "64:ff9b::8.8.8.8"),
        ("64:ff9b:1::/48", "64:ff9b:1::8.8.8.8"),
        ("64:ff9b:1::/48", "64:ff9b:1:808:8:800::"),
        ("2002::/16", "2002:808:808::1"),
        ("2001::/32", "2001:0:808:808::f7f7:f7f7"),
        ("::/0", "::1"),
        ("fe80::/10", "fe80::1%eth0"),
    ],
)
def test_an_allowed_ipv6_range_opens_its_addresses(allowed: str, address: str) -> None:
    assert EgressPolicy(allow=[allowed]).check_address(address) is None


def test_a_denial_comes_before_an_exception_and_reaches_embedded_addresses() -> None:
    policy = EgressPolicy(allow=["10.0.0.0/8", "64:ff9b::/96"], deny=["10.9.0.0/16", "8.8.8.0/24"])

    assert policy.check_address("10.8.0.1") is None
    assert "10.9.0.0/16" in (policy.check_address("10.9.0.1") or "")
    assert "8.8.8.0/24" in (policy.check_url("https://8.8.8.8/") or "")
    assert "8.8.8.0/24" in (policy.check_address("64:ff9b::8.8.8.8") or "")


@pytest.mark.parametrize(
    ("answers", "allowed"),
    [
        (["1.1.1.1"], True),
        (["1.1.1.1", "2606:4700:4700::1111"], True),
        (["1.1.1.1", "10.0.0.1"], False),
        (["10.0.0.1", "1.1.1.1"], False),
        (["1.1.1.1", "::ffff:10.0.0.1"], False),
        (["2606:4700:4700::1111", "64:ff9b::a9fe:a9fe"], False),
        ([], False),
    ],
)
def test_a_name_may_be_called_if_every_answer_may(answers: list[str], *, allowed: bool) -> None:
    assert (EgressPolicy().check_addresses(answers) is None) is allowed


def test_the_refusal_of_a_name_reads_the_same_for_every_forbidden_address() -> None:
    """An error that named the range would let a consumer map the operator's network; the log has the details."""
    policy = EgressPolicy(deny=["8.8.8.0/24"])
    answers = (["10.77.88.99"], ["8.8.8.8"], ["127.0.0.1"], ["1.1.1.1", "169.254.169.254"], ["64:ff9b::a9fe:a9fe"])
    sentences = {policy.check_addresses(addresses) for addresses in answers}
    assert len(sentences) == 1
    assert "public addresses" in str(sentences)
    assert policy.explain_addresses(["1.1.1.1", "8.8.8.8"]) == "8.8.8.8 is in 8.8.8.0/24, which the operator does not allow"


@pytest.mark.parametrize("port", [1, 22, 25, 110, 143, 465, 587, 6000, 6379, 6667, 11211])
def test_a_port_of_a_line_protocol_is_refused(port: int) -> None:
    assert port in PORTS_DENIED
    assert f"port {port} " in (EgressPolicy().check_url(f"https://example.com:{port}/") or "")


@pytest.mark.parametrize("port", [80, 443, 3000, 8080, 8443, 9000, 50051, 65535])
def test_any_other_port_is_permitted(port: int) -> None:
    assert EgressPolicy().check_url(f"https://example.com:{port}/") is None


def test_the_operators_ports_are_the_only_ones() -> None:
    policy = EgressPolicy(ports=[443, 6667])

    assert policy.check_url("https://example.com/") is None
    assert policy.check_url("https://example.com:6667/") is None
    assert policy.check_url("https://example.com:8443/") is not None
    assert EgressPolicy(ports=[8443]).check_url("https://example.com/") is not None


@pytest.mark.parametrize(
    ("word", "advice"),
    [
        ("https", "127.0.0.0/8"),
        ("localhost", "127.0.0.0/8"),
        ("", "127.0.0.0/8"),
        ("10.0.0.0/33", "127.0.0.0/8"),
        ("example.com", "127.0.0.0/8"),
        ("10.0.0.1/8", "10.0.0.0/8"),
        ("fe80::1/10", "fe80::/10"),
    ],
)
def test_a_wrong_word_is_reported_with_what_to_write(word: str, advice: str) -> None:
    with pytest.raises(ValueError, match=advice):
        EgressPolicy(allow=[word])
    with pytest.raises(ValueError, match=advice):
        EgressPolicy(deny=[word])


def test_http_is_no_range_to_deny() -> None:
    with pytest.raises(ValueError, match="'http' is not an address range"):
        EgressPolicy(deny=["http"])


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_a_wrong_port_is_reported(port: int) -> None:
    with pytest.raises(ValueError, match=f"{port} is not a port"):
        EgressPolicy(ports=[443, port])
