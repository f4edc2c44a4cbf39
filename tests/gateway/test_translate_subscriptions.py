import dataclasses
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hooktide.subscription.v1 import subscription_pb2 as pb
from hypothesis import given
from hypothesis import strategies as st

from gateway.authentication import Caller, Role
from gateway.member_names import CREDENTIAL_KINDS, CREDENTIAL_MEMBERS
from gateway.translate.subscriptions import create_request, parse_patch, replace_request, rotate_request, subscription_json
from services.runtime.consumer_scope import OwnConsumer
from services.runtime.errors import Failure, Reason
from services.subscription.api import wire
from services.subscription.model import ConsumerId, Protocol, State, Subscription, SubscriptionId
from services.subscription.rules.validation import SubscriptionDraft, merge_draft

OWN = OwnConsumer("con_" + "1" * 32)
CONSUMER = Caller("key_1", Role.CONSUMER, "con_1", None, {})
ADMIN = Caller("key_2", Role.ADMIN, "", None, {})
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
NULL_OR_TEXT = st.none() | TEXT
SECONDS = st.none() | st.integers(1, 30) | st.sampled_from([0.5, 2.25])
RETRIES = st.none() | st.fixed_dictionaries(
    {},
    optional={
        "delays_seconds": st.none() | st.lists(SECONDS.filter(bool), max_size=3),
        "attempts_max": st.none() | st.integers(1, 31),
        "final_statuses": st.none() | st.lists(st.integers(300, 599), max_size=3, unique=True).map(sorted),
    },
)
CONFIGS = st.fixed_dictionaries(
    {},
    optional={
        "description": NULL_OR_TEXT,
        "rate_per_second": st.none() | st.sampled_from([1, 0.25]),
        "in_flight_max": st.none() | st.integers(1, 9),
        "retry": RETRIES,
        "ordering": st.sampled_from([None, "none", "key"]),
    },
)
SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "headers": st.none() | st.dictionaries(st.sampled_from(["x-a", "x-b", "x-c"]), NULL_OR_TEXT, max_size=3),
        "timeout_seconds": SECONDS,
        "content_mode": st.sampled_from([None, "structured", "binary", "data_only"]),
        "signatures": st.none() | st.sampled_from([["v1"], ["v1a"], ["v1", "v1a"]]),
        "http_message_signature": st.none() | st.booleans(),
        "ca_certificates": NULL_OR_TEXT,
    },
)
CREDENTIALS = st.sampled_from(list(CREDENTIAL_KINDS)).flatmap(
    lambda name: st.fixed_dictionaries(
        {"credentialtype": st.just(name)}, optional=dict.fromkeys(CREDENTIAL_MEMBERS[CREDENTIAL_KINDS[name]], NULL_OR_TEXT)
    )
)
MEMBERS = {
    "sink": NULL_OR_TEXT,
    "types": st.none() | st.lists(TEXT, max_size=3),
    "source": NULL_OR_TEXT,
    "config": st.none() | CONFIGS,
    "protocolsettings": st.none() | SETTINGS,
    "sinkcredential": st.none() | CREDENTIALS,
}
PATCHES = st.fixed_dictionaries(
    {}, optional={**MEMBERS, "protocol": st.sampled_from([None, "HTTP"]), "id": TEXT, "state": TEXT, "created_at": TEXT}
)
PROBLEM_DOCS_PATH = st.fixed_dictionaries(
    {name: values for name, values in MEMBERS.items() if name not in {"config", "protocolsettings"}},
    optional={"config": CONFIGS, "protocolsettings": SETTINGS},
)
WRITABLE = ("sink", "types", "source", "config", "protocolsettings", "sinkcredential")
FIELDS = ("sink", "types", "source", "config", "protocol_settings", "sink_credential")


def errors(failure: Failure) -> dict[str, str]:
    assert failure.reason is Reason.INVALID_ARGUMENT
    return {error.field: error.description for error in failure.fields}


def merged(target: Any, patch: Any) -> Any:
    """Return the result of the pseudocode of RFC 7396 for a target and a patch."""
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
    """Return a document's writable members as answers show them: with defaults for missing members, without secrets."""
    config, settings = document.get("config", {}), document.get("protocolsettings", {})
    retry = config.get("retry") or {}
    own = {
        "delays_seconds": retry.get("delays_seconds"),
        "attempts_max": retry.get("attempts_max"),
        "final_statuses": retry.get("final_statuses") or [],
    }
    return {
        "sink": document.get("sink") or "",
        "types": document.get("types") or [],
        "source": document.get("source") or None,
        "config": {
            "description": config.get("description") or None,
            "rate_per_second": config.get("rate_per_second"),
            "in_flight_max": config.get("in_flight_max"),
            "retry": None if own == {"delays_seconds": None, "attempts_max": None, "final_statuses": []} else own,
            "ordering": config.get("ordering") or "none",
            "start": "now",
        },
        "protocolsettings": {
            "headers": {name: value for name, value in (settings.get("headers") or {}).items() if value is not None},
            "timeout_seconds": settings.get("timeout_seconds"),
            "content_mode": settings.get("content_mode") or "structured",
            "signatures": settings.get("signatures") or ["v1"],
            "http_message_signature": settings.get("http_message_signature") or False,
            "ca_certificates": settings.get("ca_certificates") or None,
        },
        "sinkcredential": shown_credential(document.get("sinkcredential")),
    }


def shown_credential(credential: dict[str, Any] | None) -> dict[str, Any] | None:
    if credential is None:
        return None
    *members, _secret = CREDENTIAL_MEMBERS[CREDENTIAL_KINDS[credential["credentialtype"]]]
    plain = {member: credential.get(member) or None for member in members}
    if "accesstokentype" in plain:
        plain["accesstokentype"] = plain["accesstokentype"] or "Bearer"
    name = plain.get("name")
    if name:
        plain["name"] = name.lower()
    return {"credentialtype": credential["credentialtype"], **plain}


def kept(draft: SubscriptionDraft) -> Subscription:
    """Return a draft as the registry stores it."""
    return Subscription(
        id=SubscriptionId("sub_1"),
        consumer_id=ConsumerId("con_1"),
        sink=draft.sink,
        protocol=Protocol.HTTP,
        types=draft.types,
        source=draft.source,
        config=draft.config.to_config(),
        settings=draft.settings.to_settings(),
        credential=None if draft.credential is None else draft.credential.credential,
        state=State.ACTIVE,
        state_reason="",
        verification=None,
        create_ms=0,
        update_ms=0,
        revision=1,
        sink_revision=1,
    )


def applied(before: pb.Subscription, patch: pb.Subscription, paths: tuple[str, ...]) -> pb.Subscription:
    """Change the masked fields, as the registry does."""
    standing, wanted = wire.subscription_draft(before), wire.subscription_draft(patch)
    draft = merge_draft(kept(standing), standing.credential, wanted, paths)
    plain = {name: getattr(wanted if name in paths else standing, name) for name in ("sink", "types", "source")}
    return wire.subscription_message(kept(dataclasses.replace(draft, **plain)))


@given(PROBLEM_DOCS_PATH, PATCHES)
def test_a_merge_patch_does_what_rfc_7396_says(document: dict[str, Any], patch: dict[str, Any]) -> None:
    """The comparison covers what answers show; a new credential type removes the members of the old one."""
    before = replace_request(OWN, "sub_1", document, "").subscription
    change = parse_patch(patch)
    after = subscription_json(applied(before, change.subscription, change.paths))
    standing = merged({}, document)
    alone = patch.get("sinkcredential")
    if alone and len(alone) == 1:
        # A patch with only a type changes nothing, since there is no credential to which it could apply.
        patch = {name: value for name, value in patch.items() if name != "sinkcredential"}
    assert {name: after[name] for name in WRITABLE} == shown(merged(standing, {name: patch[name] for name in WRITABLE if name in patch}))


@given(PATCHES)
def test_a_patch_masks_only_members_that_are_there(patch: dict[str, Any]) -> None:
    names = dict(zip(FIELDS, WRITABLE, strict=True))
    assert {names[path.partition(".")[0]] for path in parse_patch(patch).paths} <= patch.keys() & set(WRITABLE)


@given(st.fixed_dictionaries(MEMBERS))
def test_what_an_answer_shows_can_be_put_again_unchanged(document: dict[str, Any]) -> None:
    """The exception is a credential's secret, which the registry keeps."""
    first = replace_request(OWN, "sub_1", document, "")
    assert list(first.update_mask.paths) == list(FIELDS)
    stored = applied(pb.Subscription(), first.subscription, tuple(first.update_mask.paths))
    again = replace_request(OWN, "sub_1", subscription_json(stored), "")
    assert applied(stored, again.subscription, tuple(again.update_mask.paths)) == stored


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
    ("sinkcredential", {}, "/sinkcredential/credentialtype"),
    ("sinkcredential", "PLAIN", "/sinkcredential"),
    ("sinkcredential", {"credentialtype": "plain"}, "/sinkcredential/credentialtype"),
    ("sinkcredential", {"credentialtype": 1}, "/sinkcredential/credentialtype"),
    ("sinkcredential", {"credentialtype": "PLAIN", "secret": 1}, "/sinkcredential/secret"),
    ("sinkcredential", {"credentialtype": "PLAIN", "accesstoken": "t"}, "/sinkcredential/accesstoken"),
    ("sinkcredential", {"credentialtype": "HEADER", "colour": "blue"}, "/sinkcredential/colour"),
    ("protocolsettings", [], "/protocolsettings"),
    ("protocolsettings", {"headers": ["x-a"]}, "/protocolsettings/headers"),
    ("protocolsettings", {"headers": {"x-a": "1", "x/b": 1}}, "/protocolsettings/headers/x~1b"),
    ("protocolsettings", {"timeout_seconds": "15"}, "/protocolsettings/timeout_seconds"),
    ("protocolsettings", {"timeout_seconds": 1e300}, "/protocolsettings/timeout_seconds"),
    ("protocolsettings", {"timeout": 15}, "/protocolsettings/timeout"),
    ("protocolsettings", {"content_mode": "batched"}, "/protocolsettings/content_mode"),
    ("protocolsettings", {"signatures": "v1"}, "/protocolsettings/signatures"),
    ("protocolsettings", {"signatures": ["v1", "v2"]}, "/protocolsettings/signatures/1"),
    ("protocolsettings", {"signatures": [{}]}, "/protocolsettings/signatures/0"),
    ("protocolsettings", {"http_message_signature": "yes"}, "/protocolsettings/http_message_signature"),
    ("protocolsettings", {"http_message_signature": 1}, "/protocolsettings/http_message_signature"),
    ("protocolsettings", {"ca_certificates": ["pem"]}, "/protocolsettings/ca_certificates"),
    ("config", {"ordering": "no order"}, "/config/ordering"),
    ("config", {"ordering": 1}, "/config/ordering"),
    ("config", {"start": "yesterday"}, "/config/start"),
    ("config", {"start": ""}, "/config/start"),
    ("config", {"start": 1_700_000_000}, "/config/start"),
    ("config", {"start": {"time": "2030-01-31T12:00:00Z"}}, "/config/start"),
    ("config", {"start": "2030-01-31"}, "/config/start"),
    ("config", {"retry": {"attempts_max": "3"}}, "/config/retry/attempts_max"),
    ("config", {"retry": {"attempts_max": 1.5}}, "/config/retry/attempts_max"),
    ("config", {"retry": {"final_statuses": 404}}, "/config/retry/final_statuses"),
    ("config", {"retry": {"final_statuses": [400, "4xx"]}}, "/config/retry/final_statuses/1"),
    ("config", {"retry": {"final_statuses": [400, True]}}, "/config/retry/final_statuses/1"),
    ("config", {"retry": {"final_statuses": [1 << 31]}}, "/config/retry/final_statuses/0"),
    ("config", {"rate_per_second": "50"}, "/config/rate_per_second"),
    ("config", {"rate_per_second": True}, "/config/rate_per_second"),
    ("config", {"rate_per_second": 10**400}, "/config/rate_per_second"),
    ("config", {"in_flight_max": 1.5}, "/config/in_flight_max"),
    ("config", {"in_flight_max": 1 << 31}, "/config/in_flight_max"),
    ("config", {"retry": [5, 30]}, "/config/retry"),
    ("config", {"retry": {"delays_seconds": 5}}, "/config/retry/delays_seconds"),
    ("config", {"retry": {"delays_seconds": [5, "30", None]}}, "/config/retry/delays_seconds/1"),
    ("config", {"retry": {"delays_seconds": [5, "30", None]}}, "/config/retry/delays_seconds/2"),
    ("config", {"retry": {"delays": [5]}}, "/config/retry/delays"),
]


@pytest.mark.parametrize(("name", "value", "pointer"), WRONG)
def test_a_wrong_member_is_refused_at_its_pointer_on_every_way_in(name: str, value: object, pointer: str) -> None:
    body = {"sink": "https://a.example", name: value}
    for way_in in (
        lambda: create_request(CONSUMER, body, ""),
        lambda: replace_request(OWN, "sub_1", body, ""),
        lambda: parse_patch({name: value}),
    ):
        with pytest.raises(Failure) as caught:
            way_in()
        assert pointer in errors(caught.value)


def test_what_a_later_version_will_take_is_refused_as_such() -> None:
    with pytest.raises(Failure) as caught:
        create_request(CONSUMER, {"sink": "https://a.example", "filters": [], "colour": "blue"}, "")
    assert errors(caught.value)["/filters"] == "is not supported by this version; leave it out"
    assert errors(caught.value)["/colour"].startswith("is not a member of this object; its members are: consumer_id, ")


@pytest.mark.parametrize(
    ("start", "written"),
    [
        ("now", pb.Start(point=pb.START_POINT_NOW)),
        ("beginning", pb.Start(point=pb.START_POINT_BEGINNING)),
        ("2023-11-14T23:13:20+01:00", pb.Start(time=Timestamp(seconds=1_700_000_000))),
        (None, None),
    ],
)
def test_a_start_is_a_word_or_a_time_and_a_patch_changes_it_only_if_it_names_one(start: str | None, written: pb.Start | None) -> None:
    config: dict[str, object] = {"start": start}
    request = create_request(CONSUMER, {"sink": "https://a.example", "config": config}, "")
    assert request.subscription.config.HasField("start") == (written is not None)
    assert request.subscription.config.start == (written or pb.Start())
    assert parse_patch({"config": config}).paths == (() if written is None else ("config.start",))


def test_a_wrong_start_is_one_problem() -> None:
    for value in ("", 7, "soon"):
        with pytest.raises(Failure) as caught:
            parse_patch({"config": {"start": value}})
        assert len(caught.value.fields) == 1


def test_all_that_is_wrong_is_named_at_once() -> None:
    with pytest.raises(Failure) as caught:
        create_request(CONSUMER, {"sink": 1, "types": 2, "config": {"x": 3}, "y": 4}, "")
    assert set(errors(caught.value)) == {"/sink", "/types", "/config/x", "/y"}


def test_a_secret_cannot_be_changed_by_the_way() -> None:
    for way_in in (lambda: replace_request(OWN, "sub_1", {"sink": "s", "secret": "x"}, ""), lambda: parse_patch({"secret": "x"})):
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
        rotate_request(OWN, "sub_1", {"overlap_seconds": value}, "")
    assert list(errors(caught.value)) == ["/overlap_seconds"]


def test_an_overlap_that_is_not_given_is_for_the_registry_to_choose() -> None:
    assert not rotate_request(OWN, "sub_1", {}, "").HasField("overlap")
    assert rotate_request(OWN, "sub_1", {"overlap_seconds": 0}, "").HasField("overlap")


def test_a_very_long_name_is_not_repeated_in_full() -> None:
    with pytest.raises(Failure) as caught:
        parse_patch({"x" * 100_000: 1})
    assert len(caught.value.message) < 400
