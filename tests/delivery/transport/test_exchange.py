"""Exchange: the bytes of a request (RFC 9112), and how many addresses one exchange tries."""

import pytest

from services.delivery.transport.exchange import ADDRESSES_DIALLED_MAX, Exchange, Target, request_bytes
from services.delivery.transport.protocol import Request


def target(*, path: str = "/hook?a=%20", host: str = "sink.example:8443", addresses: tuple[str, ...] = ("127.0.0.1",)) -> Target:
    return Target("sink.example", addresses, 8443, is_tls=True, host=host, path=path, origin=("sink.example", 8443))


def request(body: bytes = b"{}", method: str = "POST", **headers: str) -> Request:
    return Request("https://sink.example:8443/hook", headers, body, method=method)


def test_a_request_has_its_target_its_headers_in_order_and_its_length() -> None:
    sent = request_bytes(request(b'{"a":1}', x="1", b="two", empty=""), target())
    assert sent == (b'POST /hook?a=%20 HTTP/1.1\r\nHost: sink.example:8443\r\nx: 1\r\nb: two\r\nempty:\r\nContent-Length: 7\r\n\r\n{"a":1}')


@pytest.mark.parametrize(("method", "stated"), [("POST", True), ("PUT", True), ("OPTIONS", False), ("GET", False)])
def test_an_empty_body_has_a_length_if_the_method_carries_content(method: str, *, stated: bool) -> None:
    sent = request_bytes(request(b"", method), target())
    assert (b"Content-Length: 0\r\n" in sent) == stated
    assert sent.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("value", ["a\r\nx: b", "a\nb", "a\rb", "a\0b"])
def test_a_header_that_would_end_its_line_is_never_sent(value: str) -> None:
    with pytest.raises(ValueError, match="line break"):
        request_bytes(request(x=value), target())


@pytest.mark.parametrize("method", ["", "GET /", "POST\r\n"])
def test_a_method_that_is_none_is_never_sent(method: str) -> None:
    with pytest.raises(ValueError, match="line break"):
        request_bytes(request(method=method), target())


@pytest.mark.parametrize("part", ["path", "host"])
def test_a_target_whose_url_would_end_the_line_is_refused(part: str) -> None:
    with pytest.raises(ValueError, match="cannot be sent"):
        target(**{part: "/a\r\nx: b"})  # type: ignore[arg-type]  # path and host are text


def test_an_exchange_tries_a_bounded_number_of_addresses() -> None:
    many = tuple(f"127.0.0.{number}" for number in range(1, 10))
    exchange = Exchange(request(), lambda _answer: None, target(addresses=many))
    assert exchange.addresses_left == ADDRESSES_DIALLED_MAX
    exchange.tried = ADDRESSES_DIALLED_MAX - 1
    assert exchange.addresses_left == 1
    one = Exchange(request(), lambda _answer: None, target())
    assert one.addresses_left == 1
