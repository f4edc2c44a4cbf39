"""Keys: translates API keys between JSON and the contract."""

from hooktide.subscription.v1 import access_pb2 as pb

from gateway.authentication import Caller, Role
from gateway.translate.body_fields import BodyFields
from gateway.translate.enum_words import one_of, word_of
from gateway.translate.timestamps import time_json
from services.runtime.errors import Failure, Reason

_ROLES = {"admin": pb.ROLE_ADMIN, "emitter": pb.ROLE_EMITTER, "consumer": pb.ROLE_CONSUMER}


def create_key_request(body: dict[str, object], request_id: str) -> pb.CreateKeyRequest:
    """Return the call that a body asks for."""
    fields = BodyFields(body)
    if not fields.has_value("role"):
        fields.problem("role", f"is required; it {one_of(_ROLES)}")
    request = pb.CreateKeyRequest(
        key=pb.Key(
            role=fields.word("role", _ROLES, pb.ROLE_UNSPECIFIED),
            consumer_id=fields.text("consumer_id"),
            name=fields.text("name"),
            expire_time=fields.time("expires_at"),
        ),
        request_id=request_id,
    )
    fields.ignore("id", "hint", "created_at")
    fields.done()
    return request


def key_json(key: pb.Key) -> dict[str, object]:
    """Return an API key without its clear text; `consumer_id` is null except for the role consumer."""
    return {
        "id": key.id,
        "role": word_of(pb.Role.Name(key.role), "ROLE_"),
        "consumer_id": key.consumer_id or None,
        "name": key.name or None,
        "hint": key.hint,
        "expires_at": time_json(key.expire_time) if key.HasField("expire_time") else None,
        "created_at": time_json(key.create_time),
    }


def caller_or_refusal(result: pb.AuthenticatedKey) -> Caller | Failure:
    """Return the caller that an API key stands for, or why the key is refused."""
    if not result.HasField("key"):
        return Failure(Reason.KEY_INVALID, "The API key is malformed, unknown, expired or revoked; use a valid key.")
    key = result.key
    if key.role not in _ROLES.values():
        return Failure(
            Reason.ROLE_FORBIDDEN, "This gateway does not know the API key's role; update the gateway to the registry's version."
        )
    return Caller(
        key_id=key.id,
        role=Role(word_of(pb.Role.Name(key.role), "ROLE_")),
        consumer_id=key.consumer_id,
        expires_unix_s=key.expire_time.ToNanoseconds() / 1e9 if key.HasField("expire_time") else None,
        shown=key_json(key),
    )
