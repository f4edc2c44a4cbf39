"""Contract: what it promises to others: reasons with codes, and the bytes of the CloudEvents protobuf format."""

import importlib
import re
from pathlib import Path

import grpc
import pytest
from google.protobuf import descriptor_pool
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.timestamp_pb2 import Timestamp
from hooktide.error.v1 import error_pb2
from hooktide.event.v1 import event_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from services.runtime.errors import Reason

PREFIX = "ERROR_REASON_"
PROTOS = Path(__file__).parents[2] / "protos"
VARINT, LENGTH = 0, 2

CloudEvent = event_pb2.CloudEvent
Value = event_pb2.CloudEvent.CloudEventAttributeValue


def test_every_reason_of_the_contract_is_known_with_its_number() -> None:
    declared = {name.removeprefix(PREFIX): number for name, number in error_pb2.ErrorReason.items() if number}

    assert {reason.name: reason.value for reason in Reason} == declared


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_ends_a_call_with_the_code_that_the_contract_documents(reason: Reason) -> None:
    text = (PROTOS / "hooktide/error/v1/error.proto").read_text()
    comment = re.search(rf"// (.+)\n  {PREFIX}{reason.name} = ", text)
    assert comment is not None
    documented = {code for code in grpc.StatusCode if re.search(rf"\b{code.name}\b", comment[1])}

    assert documented <= {reason.code}
    assert reason.code is not grpc.StatusCode.OK


def varint(number: int) -> bytes:
    """Return a base-128 number: seven bits a byte, lowest bits first."""
    number &= 2**64 - 1
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def field(number: int, value: int | str | bytes) -> bytes:
    """Return a tagged field: a varint for a number, otherwise length and bytes."""
    if isinstance(value, int):
        return varint(number << 3 | VARINT) + varint(value)
    raw = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | LENGTH) + varint(len(raw)) + raw


def attribute(name: str, value: bytes) -> bytes:
    """Return an entry of `attributes`: a map is a repeated message of key 1 and value 2."""
    return field(5, field(1, name) + field(2, value))


# The kinds of value by their field numbers in the CloudEvents protobuf format.
VALUES = {
    "flag": (field(1, 1), Value(ce_boolean=True)),
    "count": (field(2, -7), Value(ce_integer=-7)),
    "subject": (field(3, "eu-7 ü"), Value(ce_string="eu-7 ü")),
    "digest": (field(4, b"\x00\xff"), Value(ce_bytes=b"\x00\xff")),
    "dataschema": (field(5, "https://schema.example/order"), Value(ce_uri="https://schema.example/order")),
    "origin": (field(6, "/shop/1"), Value(ce_uri_ref="/shop/1")),
    "time": (field(7, field(1, 1_700_000_000) + field(2, 5)), Value(ce_timestamp=Timestamp(seconds=1_700_000_000, nanos=5))),
}
PAYLOADS = {
    "binary_data": (field(6, b"\x00\x01\xff"), CloudEvent(binary_data=b"\x00\x01\xff")),
    "text_data": (field(7, '{"id": 7}'), CloudEvent(text_data='{"id": 7}')),
    "proto_data": (
        field(8, field(1, "type.example/shop.Order") + field(2, b"\x08\x07")),
        CloudEvent(proto_data=AnyMessage(type_url="type.example/shop.Order", value=b"\x08\x07")),
    ),
    "none": (b"", CloudEvent()),
}
REQUIRED = field(1, "e-1") + field(2, "/shop") + field(3, "1.0") + field(4, "order.created")


@pytest.mark.parametrize("payload", PAYLOADS)
def test_bytes_of_another_sdk_parse_as_our_event(payload: str) -> None:
    written, same = PAYLOADS[payload]

    event = CloudEvent.FromString(REQUIRED + b"".join(attribute(name, value) for name, (value, _) in VALUES.items()) + written)

    assert (event.id, event.source, event.spec_version, event.type) == ("e-1", "/shop", "1.0", "order.created")
    assert dict(event.attributes) == {name: value for name, (_, value) in VALUES.items()}
    assert event.WhichOneof("data") == (None if payload == "none" else payload)
    assert (event.binary_data, event.text_data, event.proto_data) == (same.binary_data, same.text_data, same.proto_data)


def test_a_field_of_a_later_version_is_no_error() -> None:
    event = CloudEvent.FromString(REQUIRED + field(99, "new"))

    assert event.id == "e-1"


@pytest.mark.parametrize("payload", PAYLOADS)
@pytest.mark.parametrize("name", VALUES)
def test_our_events_bytes_are_those_of_the_format(payload: str, name: str) -> None:
    written, event = PAYLOADS[payload]
    raw, value = VALUES[name]

    ours = CloudEvent(id="e-1", source="/shop", spec_version="1.0", type="order.created", attributes={name: value})
    ours.MergeFrom(event)

    assert ours.SerializeToString(deterministic=True) == REQUIRED + attribute(name, raw) + written


def test_a_batch_is_a_repeated_event() -> None:
    other = field(1, "e-2") + field(2, "/shop") + field(3, "1.0") + field(4, "order.paid")

    batch = event_pb2.CloudEventBatch.FromString(field(1, REQUIRED) + field(1, other))

    assert [event.id for event in batch.events] == ["e-1", "e-2"]
    assert batch.SerializeToString() == field(1, REQUIRED) + field(1, other)


@settings(deadline=None)
@given(st.text(max_size=50), st.integers(-(2**31), 2**31 - 1), st.binary(max_size=300))
def test_any_text_number_and_payload_survive_both_ways(text: str, number: int, payload: bytes) -> None:
    raw = field(1, f"id{text}") + field(2, "/s") + field(3, "1.0") + field(4, "t") + attribute("n", field(2, number)) + field(6, payload)
    event = CloudEvent.FromString(raw)

    assert (event.id, event.attributes["n"].ce_integer, event.binary_data) == (f"id{text}", number, payload)
    assert event.SerializeToString(deterministic=True) == raw


@pytest.mark.parametrize("path", sorted(PROTOS.glob("hooktide/**/*.proto")), ids=lambda path: path.stem)
def test_a_file_names_its_packages_in_go_and_java(path: Path) -> None:
    """Without these names plain protoc serves neither language; after a release others import them."""
    area = path.parent.relative_to(PROTOS).parts[1]
    name = path.relative_to(PROTOS).as_posix()
    importlib.import_module(name.removesuffix(".proto").replace("/", ".") + "_pb2")
    options = descriptor_pool.Default().FindFileByName(name).GetOptions()

    assert options.go_package == f"hooktide/{area}/v1;{area}v1"
    assert (options.java_package, options.java_multiple_files) == (f"hooktide.{area}.v1", True)
