import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.ingest.event_validation import EventRefusal, validate_event
from services.runtime.event_types import (
    event_type_pattern_problem,
    event_type_problem,
    is_reserved,
    patterns_of,
    reserved_source_problem,
    type_ranges,
)
from services.subscription.rules.validation import event_type_problems
from tests.support.events import cloud_event

# Text with parts that could confuse one of the rules.
NAMES = st.text(st.sampled_from("ab.*/:+ ü%\x00\x85\n\ufdd0\u2028") | st.characters(exclude_categories=["Cs"]), max_size=12)


def is_accepted_by_ingest(name: str) -> bool:
    try:
        validate_event(cloud_event(type_=name), bytes_max=10_000)
    except EventRefusal:
        return False
    return True


@given(NAMES)
@example("ü" * 128)
@example("ü" * 129)
@example("a" * 256)
@example("a" * 257)
def test_what_can_be_emitted_can_stand_in_the_catalogue_and_be_subscribed_to_by_name(name: str) -> None:
    accepted = is_accepted_by_ingest(name)
    assert (event_type_problem(name) is None) is accepted
    assert (event_type_problems(name, "") == []) is accepted
    if accepted:
        assert event_type_pattern_problem(name) is None
        assert name in patterns_of(name)


@given(NAMES)
def test_a_pattern_that_is_no_type_is_a_family_or_all(pattern: str) -> None:
    if event_type_pattern_problem(pattern) is None and not is_accepted_by_ingest(pattern):
        family = pattern.removesuffix(".*")
        assert pattern == "*" or pattern in patterns_of(f"{family}.x")


@pytest.mark.parametrize("name", ["order:created", "com/foo", "urn:x:y", "a+b", "ü.x", "order created", "order..x", ".a"])
def test_names_of_other_systems_are_taken(name: str) -> None:
    assert is_accepted_by_ingest(name)
    assert event_type_pattern_problem(name) is None
    assert event_type_pattern_problem(f"{name}.*") is None


WRONG = ["", ".*", "**", "order.**", "*.created", "order.*.created", "order*", "a\n", "ü" * 129, "a" * 255 + ".*"]


@pytest.mark.parametrize("pattern", WRONG)
def test_a_pattern_that_could_match_nothing_is_refused(pattern: str) -> None:
    assert event_type_pattern_problem(pattern) is not None


def test_a_type_matches_its_name_and_the_families_above_it() -> None:
    assert list(patterns_of("order.eu.created")) == ["order.eu.created", "order.eu.*", "order.*", "*"]
    assert list(patterns_of("order")) == ["order", "*"]


def test_a_reserved_type_matches_only_what_names_it() -> None:
    assert list(patterns_of("hooktide.a.b")) == ["hooktide.a.b", "hooktide.a.*", "hooktide.*"]
    assert list(patterns_of("hooktide")) == ["hooktide", "*"]
    assert list(patterns_of("hooktides.a")) == ["hooktides.a", "hooktides.*", "*"]


@pytest.mark.parametrize("name", ["hooktide.", "hooktide.x", "hooktide.delivery.exhausted", "hooktide.ü"])
def test_a_reserved_type_can_be_subscribed_to_but_neither_emitted_nor_catalogued(name: str) -> None:
    assert is_reserved(name)
    assert not is_accepted_by_ingest(name)
    assert [problem.field for problem in event_type_problems(name, "")] == ["event_type.name"]
    assert event_type_pattern_problem(name) is None
    assert event_type_pattern_problem("hooktide.*") is None


@pytest.mark.parametrize("name", ["hooktide", "hooktides.x", "Hooktide.x", "x.hooktide.y", " hooktide.x"])
def test_a_type_that_only_resembles_a_notice_is_anybodys(name: str) -> None:
    assert not is_reserved(name)
    assert is_accepted_by_ingest(name)
    assert event_type_problems(name, "") == []


def test_only_sources_below_hooktides_own_are_reserved() -> None:
    assert reserved_source_problem("/hooktide/reg_1") is not None
    assert [reserved_source_problem(each) for each in ("/hooktide", "/hooktides/x", "hooktide/x", "/shop/hooktide/")] == [None] * 4


VALID = NAMES.filter(lambda name: event_type_problem(name) is None) | st.sampled_from(
    ["hooktide", "hooktide.a", "hooktide.a.b", "hooktide/a"]
)


@given(st.lists(VALID | VALID.map(lambda name: f"{name}.*") | st.just("*"), max_size=6), VALID)
def test_the_ranges_of_patterns_hold_exactly_the_types_that_match(patterns: list[str], name: str) -> None:
    names, ranges = type_ranges(patterns)
    matches = any(pattern in (patterns or ["*"]) for pattern in patterns_of(name))
    assert (name in names or any(first <= name < end for first, end in ranges)) is matches
    assert sorted(ranges) == list(ranges)
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(ranges))
    assert not any(first <= each < end for first, end in ranges for each in names)
