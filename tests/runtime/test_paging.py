import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.runtime.errors import Failure, Reason
from services.runtime.paging import PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX, fitting, page_size, page_token, parse_page_token

PLACE = st.tuples(st.text(), st.integers(-(2**63), 2**63 - 1))
SHAPE = (str, int)


def refused(kind: str, token: str, shape: tuple[type, ...] = SHAPE) -> None:
    with pytest.raises(Failure) as caught:
        parse_page_token(kind, token, shape)
    assert caught.value.reason is Reason.PAGE_TOKEN_INVALID


@given(st.text(), PLACE)
def test_a_token_leads_back_to_its_place(kind: str, place: tuple[str, int]) -> None:
    token = page_token(kind, place)
    assert parse_page_token(kind, token, SHAPE) == place
    assert token.isascii()
    assert not set(token) - set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


@given(st.text(), st.text(), PLACE)
def test_another_list_does_not_take_it(kind: str, other: str, place: tuple[str, int]) -> None:
    if other != kind:
        refused(other, page_token(kind, place))


@given(PLACE)
def test_neither_does_one_with_places_of_another_shape(place: tuple[str, int]) -> None:
    token = page_token("list", place)
    for shape in ((str,), (int, str), (str, int, int), ()):
        refused("list", token, shape)


@given(st.text(min_size=1))
def test_any_other_text_is_refused_as_a_token(text: str) -> None:
    refused("list", text)


@given(PLACE, st.data())
def test_a_token_cut_short_is_refused(place: tuple[str, int], data: st.DataObject) -> None:
    token = page_token("list", place)
    cut = token[: data.draw(st.integers(1, len(token) - 1))]
    refused("list", cut)


def test_no_token_is_the_first_page() -> None:
    assert parse_page_token("list", "", SHAPE) is None


@given(st.integers(-(2**31), 2**31 - 1))
def test_a_page_size_is_coerced_into_its_limits(asked: int) -> None:
    size = page_size(asked)
    assert size == (PAGE_SIZE_DEFAULT if asked <= 0 else min(asked, PAGE_SIZE_MAX))


@pytest.mark.parametrize(("sizes", "count"), [([], 0), ([11], 1), ([11, 1], 1), ([4, 6, 1], 2), ([4, 7], 1), ([1, 1], 2)])
def test_a_page_holds_what_fits_and_at_least_one_item(sizes: list[int], count: int) -> None:
    assert fitting(sizes, bytes_max=10) == count
