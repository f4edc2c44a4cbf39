import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.delivery.request.request_builder import origin_headers
from services.delivery.sinks.verification_protocol import Granted, Pending, Refused, callback_url, consent, request_headers

ORIGIN = "hooks.example.com"


def answer(*headers: tuple[str, str], callback_offered: bool = False) -> Granted | Pending | Refused:
    return consent(headers, ORIGIN, callback_offered=callback_offered)


@pytest.mark.parametrize("origin", [ORIGIN, "*", " Hooks.Example.COM ", "\t*"])
@pytest.mark.parametrize("name", ["WebHook-Allowed-Origin", "webhook-allowed-origin"])
def test_our_name_or_an_asterisk_is_consent(name: str, origin: str) -> None:
    assert answer((name, origin)) == Granted(None)


@pytest.mark.parametrize(("rate", "granted"), [("120", 120), ("*", None), ("1", 1), ("999999999", 999_999_999)])
def test_a_consent_may_set_a_rate(rate: str, granted: int | None) -> None:
    assert answer(("WebHook-Allowed-Origin", "*"), ("WebHook-Allowed-Rate", rate)) == Granted(granted)


@pytest.mark.parametrize("rate", ["0", "-1", "1.5", "many", "", "1 ,2", "9" * 10, "\u0663"])
def test_a_rate_that_is_none_makes_a_consent_void_and_says_what_to_change(rate: str) -> None:
    found = answer(("WebHook-Allowed-Origin", "*"), ("WebHook-Allowed-Rate", rate))
    assert isinstance(found, Refused)
    assert "WebHook-Allowed-Rate" in found.why


def test_two_rates_are_none() -> None:
    assert isinstance(answer(("WebHook-Allowed-Origin", "*"), ("WebHook-Allowed-Rate", "1"), ("webhook-allowed-rate", "2")), Refused)


@pytest.mark.parametrize(
    "origin", ["other.example.com", "hooks.example.com.evil.example", f"{ORIGIN}, other.example", "**", "", "\u212aooks"]
)
@pytest.mark.parametrize("callback_offered", [True, False])
def test_another_name_is_a_refusal_whether_or_not_a_callback_was_offered(origin: str, callback_offered: bool) -> None:  # noqa: FBT001 - a parameter
    found = answer(("WebHook-Allowed-Origin", origin), callback_offered=callback_offered)
    assert isinstance(found, Refused)
    assert found.why.isascii()
    assert found.why.isprintable()


def test_two_names_are_none() -> None:
    assert isinstance(answer(("WebHook-Allowed-Origin", ORIGIN), ("WebHook-Allowed-Origin", "*")), Refused)


def test_silence_may_become_consent_where_a_callback_was_offered() -> None:
    headers = (("Allow", "POST, OPTIONS"), ("Access-Control-Allow-Origin", "*"), ("WebHook-Allowed-Rate", "*"))
    assert isinstance(answer(*headers, callback_offered=True), Pending)
    assert isinstance(answer(*headers), Refused)
    assert isinstance(answer(), Refused)


@given(st.lists(st.tuples(st.sampled_from(["WebHook-Allowed-Origin", "WebHook-Allowed-Rate", "x"]), st.text(max_size=300)), max_size=4))
def test_what_is_said_of_an_answer_is_short_and_plain_whatever_the_sink_sends(headers: list[tuple[str, str]]) -> None:
    found = consent(headers, ORIGIN, callback_offered=True)
    if not isinstance(found, Granted):
        assert found.why.isascii()
        assert found.why.isprintable()
        assert len(found.why) <= 250


def test_the_question_has_our_name_and_what_else_is_known() -> None:
    assert request_headers(ORIGIN) == {"webhook-request-origin": ORIGIN} == origin_headers(ORIGIN)
    callback = callback_url("https://events.example.com", "token")
    assert callback == "https://events.example.com/v1/verifications/token"
    assert request_headers(ORIGIN, callback_url=callback, rate_per_second=0.001) == {
        "webhook-request-origin": ORIGIN,
        "webhook-request-callback": callback,
        "webhook-request-rate": "1",
    }
    assert request_headers(ORIGIN, rate_per_second=50)["webhook-request-rate"] == "3000"
    assert callback_url("", "token") == ""
    assert origin_headers("") == {}
