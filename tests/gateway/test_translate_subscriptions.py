from typing import Any

import pytest
from hooktide.subscription.v1 import subscription_pb2 as pb
from hypothesis import given
from hypothesis import strategies as st

from gateway.authenticate import Caller, Role
from gateway.translate.subscriptions import create_request, parse_patch, replace_request, rotate_request, subscription_json
from services.runtime.errors import Failure, Reason

CONSUMER = Caller("key_1", Role.CONSUMER, "con_1", None, {})
ADMIN = Caller("key_2", Role.ADMIN, "", None, {})
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
NULL_OR_TEXT = st.none() | TEXT
CONFIGS = st.fixed_dictionaries({}, optional={"description": NULL_OR_TEXT})
MEMBERS = {"sink": NULL_OR_TEXT, "types": st.none() | st.lists(TEXT, max_size=3), "source": NULL_OR_TEXT, "config": st.none() | CONFIGS}
PATCHES = st.fixed_dictionaries(
    {}, optional={**MEMBERS, "protocol": st.sampled_from([None, "HTTP"]), "id": TEXT, "state": TEXT, "created_at": TEXT}
)
WRITABLE = ("sink", "types", "source", "config")


def errors(failure: Failure) -> dict[str, str]:
    assert failure.reason is Reason.INVALID_ARGUMENT
    return {error.field: error.description for error in failure.fields}


def merged(target: Any, patch: Any) -> Any:
    """Return what RFC 7396 makes of a target, as its pseudocode says."""
    if not isinstance(patch, dict):
        return patch
    target = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            target.pop(name, None)
        else:
            target[name] = merged(target.get(name), value)
    return target


def shown(document: dict[str, Any]) -> dict[str, Any]:
    """Return a document's writable members as answers show them: defaults in place of what is missing."""
    return {
        "sink": document.get("sink") or "",
        "types": document.get("types") or [],
        "source": document.get("source") or None,
        "config": {"description": document.get("config", {}).get("description") or None},
    }


def applied(subscription: pb.Subscription, patch: pb.Subscription, paths: tuple[str, ...]) -> pb.Subscription:
    """Change the masked fields, as the registry does."""
    changed = pb.Subscription()
    changed.CopyFrom(subscription)
    for path in paths:
        match path:
            case "sink" | "source":
                setattr(changed, path, getattr(patch, path))
            case "types":
                changed.types[:] = patch.types
            case "config":
                changed.config.CopyFrom(patch.config)
            case "config.description":
                changed.config.description = patch.config.description
    return changed


@given(st.fixed_dictionaries({name: values for name, values in MEMBERS.items() if name != "config"} | {"config": CONFIGS}), PATCHES)
def test_a_merge_patch_does_what_rfc_7396_says(document: dict[str, Any], patch: dict[str, Any]) -> None:
    before = replace_request("con_1", "sub_1", document, "").subscription
    change = parse_patch(patch)
    after = subscription_json(applied(before, change.subscription, change.paths))
    standing = {name: value for name, value in document.items() if value is not None}
    assert {name: after[name] for name in WRITABLE} == shown(merged(standing, {name: patch[name] for name in WRITABLE if name in patch}))


@given(PATCHES)
def test_a_patch_masks_only_members_that_are_there(patch: dict[str, Any]) -> None:
    assert {path.partition(".")[0] for path in parse_patch(patch).paths} <= patch.keys() & set(WRITABLE)


@given(st.fixed_dictionaries(MEMBERS))
def test_what_an_answer_shows_can_be_put_again_unchanged(document: dict[str, Any]) -> None:
    first = replace_request("con_1", "sub_1", document, "")
    assert list(first.update_mask.paths) == list(WRITABLE)
    assert replace_request("con_1", "sub_1", subscription_json(first.subscription), "") == first


WRONG = [
    ("sink", 1, "/sink"),
    ("sink", ["https://a.example"], "/sink"),
    ("sink", {}, "/sink"),
    ("sink", True, "/sink"),
    ("protocol", 1, "/protocol"),
    ("protocol", "http", "/protocol"),
    ("protocol", "PULL", "/protocol"),
    ("protocol", "", "/protocol"),
    ("types", "order.created", "/types"),
    ("types", {"0": "a"}, "/types"),
    ("types", ["a", 1, "b", None], "/types/1"),
    ("types", ["a", 1, "b", None], "/types/3"),
    ("source", 1.5, "/source"),
    ("source", False, "/source"),
    ("config", "text", "/config"),
    ("config", [], "/config"),
    ("config", {"description": 1}, "/config/description"),
    ("config", {"descripton": "x"}, "/config/descripton"),
    ("config", {"a/b~c": "x"}, "/config/a~1b~0c"),
    ("sinks", "x", "/sinks"),
    ("filters", [], "/filters"),
    ("filters", None, "/filters"),
    ("sinkcredential", {}, "/sinkcredential"),
    ("protocolsettings", {}, "/protocolsettings"),
    ("config", {"ordering": "none"}, "/config/ordering"),
]


@pytest.mark.parametrize(("name", "value", "pointer"), WRONG)
def test_a_wrong_member_is_refused_at_its_pointer_on_every_way_in(name: str, value: object, pointer: str) -> None:
    body = {"sink": "https://a.example", name: value}
    for way_in in (
        lambda: create_request(CONSUMER, body, ""),
        lambda: replace_request("con_1", "sub_1", body, ""),
        lambda: parse_patch({name: value}),
    ):
        with pytest.raises(Failure) as caught:
            way_in()
        assert pointer in errors(caught.value)


def test_what_a_later_version_will_take_is_refused_as_such() -> None:
    with pytest.raises(Failure) as caught:
        create_request(CONSUMER, {"sink": "https://a.example", "filters": [], "config": {"retry": {}}, "colour": "blue"}, "")
    assert errors(caught.value)["/filters"] == "is not supported by this version; leave it out"
    assert errors(caught.value)["/config/retry"] == "is not supported by this version; leave it out"
    assert errors(caught.value)["/colour"].startswith("is unknown here; known: consumer_id, ")


def test_all_that_is_wrong_is_named_at_once() -> None:
    with pytest.raises(Failure) as caught:
        create_request(CONSUMER, {"sink": 1, "types": 2, "config": {"x": 3}, "y": 4}, "")
    assert set(errors(caught.value)) == {"/sink", "/types", "/config/x", "/y"}


def test_a_secret_cannot_be_changed_by_the_way() -> None:
    for way_in in (lambda: replace_request("con_1", "sub_1", {"sink": "s", "secret": "x"}, ""), lambda: parse_patch({"secret": "x"})):
        with pytest.raises(Failure) as caught:
            way_in()
        assert list(errors(caught.value)) == ["/secret"]


def test_a_consumer_owns_what_it_creates_and_an_administrator_says_who_does() -> None:
    body: dict[str, object] = {"sink": "https://a.example", "consumer_id": "con_2"}
    assert create_request(CONSUMER, body, "").consumer_id == "con_1"
    assert create_request(CONSUMER, {**body, "consumer_id": 7}, "").consumer_id == "con_1"
    assert create_request(ADMIN, body, "").consumer_id == "con_2"
    assert create_request(ADMIN, {"sink": "https://a.example"}, "").consumer_id == ""
    with pytest.raises(Failure) as caught:
        create_request(ADMIN, {"sink": "https://a.example", "consumer_id": 7}, "")
    assert list(errors(caught.value)) == ["/consumer_id"]


@pytest.mark.parametrize("value", ["60", 1.5, True, 10**12, -(10**12), [], {}])
def test_an_overlap_is_a_whole_number_of_seconds(value: object) -> None:
    with pytest.raises(Failure) as caught:
        rotate_request("con_1", "sub_1", {"overlap_seconds": value}, "")
    assert list(errors(caught.value)) == ["/overlap_seconds"]


def test_an_overlap_that_is_not_given_is_for_the_registry_to_choose() -> None:
    assert not rotate_request("con_1", "sub_1", {}, "").HasField("overlap")
    assert rotate_request("con_1", "sub_1", {"overlap_seconds": 0}, "").HasField("overlap")


def test_a_very_long_name_is_not_repeated_in_full() -> None:
    with pytest.raises(Failure) as caught:
        parse_patch({"x" * 100_000: 1})
    assert len(caught.value.message) < 400
