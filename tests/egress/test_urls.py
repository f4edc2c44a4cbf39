import re
from ipaddress import IPv6Address, ip_address
from urllib.parse import urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from yarl import URL

from services.egress.policy import EgressPolicy
from services.egress.urls import URL_CHARS_MAX, UrlError, parse_url

REFUSED = [
    ("", "empty"),
    ("https://example.com/" + "a" * URL_CHARS_MAX, "longer"),
    # Schemes.
    ("example.com/hook", "https://"),
    ("//example.com/hook", "https://"),
    ("https:example.com", "https://"),
    ("https:/example.com", "https://"),
    ("ftp://example.com/", "https://"),
    ("file:///etc/passwd", "https://"),
    ("gopher://example.com:70/_", "https://"),
    ("javascript://example.com/", "https://"),
    ("data:text/plain,x", "https://"),
    ("unix:///run/docker.sock", "https://"),
    ("httpsx://example.com/", "https://"),
    ("://example.com/", "https://"),
    # Characters that parsers drop, fold or take for separators.
    (" https://example.com/", "spaces"),
    ("https://example.com/ ", "spaces"),
    ("https://example.com/a b", "spaces"),
    ("https://exa\tmple.com/", "spaces"),
    ("https://example.com/\r\nHost: 10.0.0.1", "spaces"),
    ("https://example.com\n@127.0.0.1/", "spaces"),
    ("https://example.com/\x00", "spaces"),
    ("https://example.com/\x7f", "spaces"),
    ("https://example.com/\x85", "spaces"),
    ("https://example.com/\xa0", "spaces"),
    ("https://example.com/\u2028", "spaces"),
    ("https://exa\u200bmple.com/", "spaces"),
    ("https://exa\xadmple.com/", "spaces"),
    ("https://exa\u202emple.com/", "spaces"),
    ("https://example.com/\ud800", "spaces"),
    ("https://example.com\\@127.0.0.1/", "backslash"),
    ("https:\\\\example.com/", "backslash"),
    ("https://127.0.0.1\\.example.com/", "backslash"),
    ("https://example.com/a\\b", "backslash"),
    # User names, fragments, escapes in the host.
    ("https://user@example.com/", "user name"),
    ("https://user:secret@example.com/", "user name"),
    ("https://example.com@127.0.0.1/", "user name"),
    ("https://example.com:443@127.0.0.1/", "user name"),
    ("https://@example.com/", "user name"),
    ("https://a@b@example.com/", "user name"),
    ("https://example.com/#top", "fragment"),
    ("https://example.com#@127.0.0.1/", "fragment"),
    ("https://127.0.0.1#.example.com/", "fragment"),
    ("https://127.0.0.%31/", "percent"),
    ("https://%6cocalhost/", "percent"),
    ("https://example.com%2f@127.0.0.1/", "user name"),
    ("https://example.com%00.example.org/", "percent"),
    ("https://[fe80::1%25eth0]/", "percent"),
    ("https://[fe80::1%eth0]/", "percent"),
    # No host, or a host that is not a name.
    ("https://", "no host"),
    ("https:///hook", "no host"),
    ("https://?a=b", "no host"),
    ("https://:443/", "no host"),
    ("https://./", "dot"),
    ("https://../", "dot"),
    ("https://.example.com/", "not a valid name"),
    ("https://example..com/", "not a valid name"),
    ("https://-example.com/", "not a valid name"),
    ("https://example-.com/", "not a valid name"),
    ("https://exa,mple.com/", "not a valid name"),
    ("https://exa;mple.com/", "not a valid name"),
    ("https://exa&mple.com/", "not a valid name"),
    ("https://exa(mple.com/", "not a valid name"),
    ("https://*.example.com/", "not a valid name"),
    ("https://" + "a" * 64 + ".com/", "not a valid name"),
    ("https://" + "a." * 126 + "com/", "not a valid name"),
    # Trailing dots.
    ("https://example.com./", "dot"),
    ("https://localhost./", "dot"),
    ("https://127.0.0.1./", "notation"),
    # Numbers that C libraries read as addresses.
    ("https://2130706433/", "notation"),
    ("https://017700000001/", "notation"),
    ("https://0x7f000001/", "notation"),
    ("https://0x7F000001/", "notation"),
    ("https://0X7f.0.0.1/", "not a valid name|notation"),
    ("https://0177.0.0.1/", "notation"),
    ("https://127.0.0.01/", "notation"),
    ("https://127.0.1/", "notation"),
    ("https://127.1/", "notation"),
    ("https://127.0.0.0x1/", "notation"),
    ("https://0/", "notation"),
    ("https://0x/", "notation"),
    ("https://1.2.3.4.5/", "notation"),
    ("https://256.0.0.1/", "notation"),
    ("https://1.2.3.256/", "notation"),
    ("https://example.1/", "notation"),
    ("https://example.0x1/", "notation"),
    # Digits, dots and letters that normalisation turns into ASCII.
    ("https://１２７.0.0.1/", "beyond ASCII"),  # noqa: RUF001 - full-width digits are the point
    ("https://①②⑦.⓪.⓪.①/", "beyond ASCII"),
    ("https://127。0。0。1/", "beyond ASCII"),
    ("https://127．0．0．1/", "beyond ASCII"),  # noqa: RUF001 - full-width dots are the point
    ("https://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ/", "beyond ASCII"),
    ("https://loca𝐥host/", "beyond ASCII"),  # noqa: RUF001 - a mathematical letter is the point
    ("https://example.com／@127.0.0.1/", "beyond ASCII"),  # noqa: RUF001 - a full-width slash is the point
    ("https://example.com＠127.0.0.1/", "beyond ASCII"),  # noqa: RUF001 - a full-width @ is the point
    ("https://example。com/", "beyond ASCII"),
    ("https://℀.example/", "beyond ASCII"),
    ("https://bücher.example/", "punycode"),
    ("https://example.com/bücher", "percent-encode"),
    ("https://xn--.example/", "not a valid name"),
    ("https://xn--a.example/", "not valid punycode"),
    ("https://xn--localhost-8.example/", "not valid punycode"),
    ("https://xn--orhcp.example/", "not valid punycode"),
    ("https://xn--99999999.example/", "not valid punycode"),
    # IPv6 brackets.
    ("https://[::1/", "brackets"),
    ("https://::1/", "no host"),
    ("https://2606:4700::1111/", "port|notation"),
    ("https://[]/", "brackets"),
    ("https://[127.0.0.1]/", "notation"),
    ("https://[v1.fe80]/", "brackets"),
    ("https://[::1]x/", "brackets"),
    ("https://[::1].example.com/", "brackets"),
    ("https://[1:2:3]/", "notation"),
    ("https://[::1]]/", "brackets"),
    ("https://[::ffff:0177.0.0.1]/", "notation"),
    ("https://a[::1]/", "not a valid name|port"),
    # Ports.
    ("https://example.com:/", "port"),
    ("https://example.com:0/", "port"),
    ("https://example.com:65536/", "port"),
    ("https://example.com:99999999999/", "port"),
    ("https://example.com:-1/", "port"),
    ("https://example.com:+443/", "port"),
    ("https://example.com:0443/", "port"),
    ("https://example.com:443:443/", "port"),
    ("https://example.com:443x/", "port"),
    ("https://example.com:0x1bb/", "port"),
    ("https://example.com:٤٤٣/", "beyond ASCII"),
    ("https://[2606:4700::1111]:/", "port"),
]

ACCEPTED = [
    ("https://example.com", "example.com", 443),
    ("https://example.com/", "example.com", 443),
    ("https://example.com?a=b", "example.com", 443),
    ("https://example.com/?@127.0.0.1/", "example.com", 443),
    ("https://example.com/@127.0.0.1", "example.com", 443),
    ("https://example.com/a%20b?c=%2f&d=é".replace("é", "%C3%A9"), "example.com", 443),
    ("HTTPS://EXAMPLE.COM:8443/Hook", "example.com", 8443),
    ("https://a.b-c.example.co.uk:1/x//y", "a.b-c.example.co.uk", 1),
    ("https://my_service/hook", "my_service", 443),
    ("https://xn--bcher-kva.example/", "xn--bcher-kva.example", 443),
    ("https://1e100.net/", "1e100.net", 443),
    ("https://127.0.0.1.example.com/", "127.0.0.1.example.com", 443),
    ("https://0x7f.example/", "0x7f.example", 443),
    ("http://example.com/", "example.com", 80),
    ("https://127.0.0.1:65535/", "127.0.0.1", 65535),
    ("https://[2606:4700:4700::1111]/", "2606:4700:4700::1111", 443),
    ("https://[2606:4700:4700:0:0:0:0:1111]:8443", "2606:4700:4700::1111", 8443),
    ("https://[::ffff:127.0.0.1]/", "::ffff:7f00:1", 443),
]


@pytest.mark.parametrize(("url", "word"), REFUSED)
def test_a_url_of_an_odd_form_is_refused_and_says_why(url: str, word: str) -> None:
    with pytest.raises(UrlError, match=word):
        parse_url(url)
    assert EgressPolicy(allow=["http", "0.0.0.0/0", "::/0"]).check_url(url) is not None


@pytest.mark.parametrize(("url", "host", "port"), ACCEPTED)
def test_a_plain_url_is_read_as_it_stands(url: str, host: str, port: int) -> None:
    parsed = parse_url(url)

    assert str(parsed.host) == host
    assert parsed.port == port


_NAMES = st.from_regex(r"[a-z0-9_-]{1,12}(\.[a-z0-9_-]{1,12}){0,3}\.?", fullmatch=True)
_HOSTS = st.one_of(
    _NAMES,
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(lambda address: f"[{address}]"),
    st.sampled_from(["localhost", "0x7f.1", "127.1", "xn--bcher-kva", "[::ffff:1.2.3.4]", "１.1.1.1", "%31", "", "[", "]", "example.com"]),  # noqa: RUF001 - a full-width digit
)
_JUNK = st.just("") | st.text(st.sampled_from("/\\@:?#[].%;,&=+~!$'()*|^`{}<>\" \t\r\n\x00\x7f\x85\u2028１。／aA09-_"), max_size=4)  # noqa: RUF001 - odd characters are the point
_URLS = st.one_of(
    st.text(max_size=40),
    st.text(max_size=40).map("https://".__add__),
    st.builds(
        "".join,
        st.tuples(
            st.sampled_from(["https://", "http://", "HTTPS://", "https:/", "//", "ftp://", "https:\\\\"]),
            _JUNK,
            _HOSTS,
            st.one_of(_JUNK, st.integers(-1, 70000).map(":{}".format)),
            _JUNK,
            st.sampled_from(["", "/", "/hook", "?a=b", "/a//b?c=d/@e", "@127.0.0.1/", "\\@127.0.0.1/"]),
            _JUNK,
        ),
    ),
    st.builds(
        "{}://{}{}{}".format,
        st.sampled_from(["https", "http"]),
        st.one_of(
            st.from_regex(r"[a-z][a-z0-9-]{0,9}[a-z0-9](\.[a-z][a-z0-9]{1,9}){0,3}", fullmatch=True),
            st.ip_addresses(network="8.0.0.0/8").map(str),
            st.ip_addresses(network="2600::/12").map("[{}]".format),
        ),
        st.sampled_from(["", ":443", ":80", ":8443", ":65535"]),
        st.sampled_from(["", "/", "/@127.0.0.1", "?@x", "//127.0.0.1/", "/?a#b"]),
    ),
)
_NAME = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)(\.(?!-)[a-z0-9_-]{1,63}(?<!-))*")


@settings(max_examples=1000, deadline=None)
@given(_URLS)
def test_whatever_is_accepted_has_one_host_for_every_parser(url: str) -> None:
    """Two other parsers agree on scheme, host and port, and the host is a name or an allowed address."""
    policy = EgressPolicy(allow=["http"])
    if policy.check_url(url) is not None:
        return
    judged, split, read = parse_url(url), urlsplit(url), URL(url, encoded=True)

    hosts = {str(judged.host)} | {_canonical(host) for host in (split.hostname, read.raw_host, URL(url).raw_host)}
    ports = {split.port or {"http": 80, "https": 443}[split.scheme], read.port, URL(url).port}
    assert hosts == {str(judged.host)}
    assert ports == {judged.port}
    assert {split.scheme, read.scheme} == {judged.scheme}
    assert split.username is split.password is read.user is None
    if isinstance(judged.host, str):
        assert _NAME.fullmatch(judged.host)
    else:
        assert policy.check_address(str(judged.host)) is None


def _canonical(host: str | None) -> str | None:
    return str(ip_address(host)) if host is not None and ":" in host else host and host.lower()


@settings(deadline=None)
@given(st.ip_addresses())
def test_an_address_is_judged_alike_in_the_url_and_when_it_is_dialled(address: object) -> None:
    policy = EgressPolicy()
    host = f"[{address}]" if isinstance(address, IPv6Address) else str(address)

    assert policy.check_url(f"https://{host}/") == policy.check_address(str(address))
