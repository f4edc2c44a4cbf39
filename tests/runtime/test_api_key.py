import string
import zlib

from hypothesis import given
from hypothesis import strategies as st

from services.runtime import api_key

RANDOM = st.binary(min_size=32, max_size=32)


@given(RANDOM)
def test_a_key_has_one_width_and_stands_for_its_random_bytes(random: bytes) -> None:
    text = api_key.format_key(random)
    assert len(text) == 4 + 43 + 6
    assert text.startswith("hkt_")
    assert text.isascii()
    assert text[4:].isalnum()
    assert api_key.parse_key(text) == random


@given(RANDOM, st.integers(0, 52), st.sampled_from(string.ascii_letters + string.digits))
def test_one_wrong_character_is_noticed(random: bytes, at: int, other: str) -> None:
    text = api_key.format_key(random)
    wrong = text[:at] + other + text[at + 1 :]
    assert api_key.parse_key(wrong) == (random if wrong == text else None)


@given(RANDOM, st.integers(4, 51))
def test_two_characters_exchanged_are_noticed(random: bytes, at: int) -> None:
    text = api_key.format_key(random)
    wrong = text[:at] + text[at + 1] + text[at] + text[at + 2 :]
    assert api_key.parse_key(wrong) == (random if wrong == text else None)


@given(st.text() | st.from_regex(r"hkt_[0-9A-Za-z]{49}", fullmatch=True))
def test_any_other_text_is_no_key_and_no_fault(text: str) -> None:
    found = api_key.parse_key(text)
    assert found is None or api_key.format_key(found) == text


@given(RANDOM)
def test_nothing_may_stand_around_a_key(random: bytes) -> None:
    text = api_key.format_key(random)
    for wrong in (text + "\n", " " + text, text[:-1], text + "0", text.upper(), text.replace("hkt_", "hts_")):
        assert api_key.parse_key(wrong) is None


@given(st.integers(0, 62**43 - 1))
def test_base62_goes_there_and_back(value: int) -> None:
    assert api_key.base62_value(api_key.base62(value, 43)) == value


def test_digits_beyond_32_bytes_are_no_key() -> None:
    """43 digits hold a little more than 32 bytes; a right checksum does not change that."""
    body = "hkt_" + "z" * 43
    assert api_key.parse_key(body + api_key.base62(zlib.crc32(body.encode()), 6)) is None


def test_new_keys_differ() -> None:
    assert len({api_key.new_key() for _ in range(100)}) == 100
    assert api_key.hint("hkt_4fTzAAAA") == "hkt_4fTz…"
