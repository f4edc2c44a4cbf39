import gzip
import zlib
from types import ModuleType

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.wrappers_pb2 import StringValue
from hooktide.delivery.v1 import delivery_pb2
from hooktide.ingest.v1 import event_log_pb2, ingest_pb2
from hooktide.subscription.v1 import access_pb2, subscription_pb2

from services.runtime.errors import Failure, Reason
from services.runtime.rpc.messages import parsed_message

_TEXT = StringValue(value="x" * 1000)
_BYTES = _TEXT.SerializeToString()


def test_a_message_is_parsed() -> None:
    assert parsed_message(StringValue.FromString, _TEXT.SerializeToString()) == _TEXT
    assert parsed_message(StringValue.FromString, b"") == StringValue()


@pytest.mark.parametrize(
    "packed", [gzip.compress(_TEXT.SerializeToString(), mtime=0), *(zlib.compress(_TEXT.SerializeToString(), level) for level in range(10))]
)
def test_a_compressed_message_is_refused(packed: bytes) -> None:
    with pytest.raises(Failure) as caught:
        parsed_message(StringValue.FromString, packed)
    assert caught.value.reason is Reason.UNSUPPORTED_MEDIA_TYPE


def test_bytes_that_are_not_protobuf_are_refused() -> None:
    with pytest.raises(Failure) as caught:
        parsed_message(StringValue.FromString, b"\x0a\xff\xff")
    assert caught.value.reason is Reason.INVALID_ARGUMENT


@pytest.mark.parametrize("file", [delivery_pb2, event_log_pb2, ingest_pb2, access_pb2, subscription_pb2])
def test_no_request_begins_as_a_compressed_message_would(file: ModuleType) -> None:
    """The first byte of zlib is the tag of a number in field 15."""
    for service in file.DESCRIPTOR.services_by_name.values():
        for method in service.methods:
            field = method.input_type.fields_by_number.get(15)
            assert field is None or field.type in {FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES, FieldDescriptor.TYPE_MESSAGE}
