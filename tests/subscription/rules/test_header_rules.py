import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.subscription.rules.header_rules import HEADERS_CHARS_MAX, HEADERS_MAX, headers_problems, name_problem, value_problem

DENIED = [
    "Host",
    "Content-Length",
    "Content-Type",
    "Content-Encoding",
    "Content-Digest",
    "Connection",
    "Keep-Alive",
    "TE",
    "Trailer",
    "Transfer-Encoding",
    "Upgrade",
    "HTTP2-Settings",
    "Expect",
    "Proxy-Authorization",
    "Proxy-Connection",
    "Webhook-Id",
    "Webhook-Signature",
    "WebHook-Request-Origin",
    "Hooktide-Attempt",
    "Ce-Id",
    "Cookie",
    "User-Agent",
    "Signature",
    "Signature-Input",
    "Traceparent",
    "Accept-Encoding",
]


@pytest.mark.parametrize("name", DENIED)
def test_a_header_of_ours_or_of_the_connection_is_refused_in_any_case_and_with_underscores(name: str) -> None:
    for spelt in (name, name.lower(), name.upper(), name.swapcase(), name.replace("-", "_")):
        assert name_problem(spelt)
        assert name_problem(spelt, secret=True)


def test_authorization_is_for_credentials_only() -> None:
    assert "credential" in str(name_problem("Authorization"))
    assert name_problem("Authorization", secret=True) is None


@pytest.mark.parametrize(
    "name", ["", "x team", "x:team", "x\r\nhost", "x-tëam", "-x", "x-", "_x", ":path", "x.y", "x" * 101, "x\x00", "x\u212a"]
)
def test_what_is_no_name_is_refused(name: str) -> None:
    assert name_problem(name)


@pytest.mark.parametrize(
    "value", ["", " a", "a ", "a\r\nx: y", "a\nb", "a\rb", "a\x00", "a\tb", "é", "\u0130", "a\x7f", "a\u2028b", "a" * 1025]
)
def test_a_value_cannot_end_its_line_nor_hold_what_is_no_printable_ascii(value: str) -> None:
    why = value_problem(value)
    assert why is not None
    assert len(value) < 4 or value not in why


@pytest.mark.parametrize(
    ("name", "value"), [("x-team", "billing"), ("X_Api_Key", 'a "b" c; d=1, e'), ("a", "1"), ("Forwarded-For-Team", "~")]
)
def test_other_headers_are_taken(name: str, value: str) -> None:
    assert headers_problems("headers", [(name, value)]) == []


@given(st.text(max_size=30), st.text(max_size=30))
def test_whatever_is_taken_is_one_line_of_a_request(name: str, value: str) -> None:
    if not headers_problems("headers", [(name, value)]):
        line = f"{name}: {value}"
        assert line.isascii()
        assert line.isprintable()
        assert line == line.strip()
        assert name.count(":") == 0


def test_names_that_differ_by_case_alone_are_one_header() -> None:
    (problem,) = headers_problems("headers", [("X-Team", "a"), ("x-team", "b")])
    assert (problem.field, problem.description.startswith("is given more than once")) == ("headers.x-team", True)


def test_headers_are_bounded_in_number_and_in_all() -> None:
    many = [(f"x-{number}", "v") for number in range(HEADERS_MAX + 1)]
    assert headers_problems("headers", many[:-1]) == []
    assert [problem.field for problem in headers_problems("headers", many)] == ["headers"]
    long = [(f"x-{number}", "v" * 1000) for number in range(HEADERS_CHARS_MAX // 1000 + 1)]
    assert "in total" in headers_problems("headers", long)[0].description
