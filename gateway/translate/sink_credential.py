"""Sink credential: translates a subscription's credential between JSON and the contract."""

from collections.abc import Mapping

from hooktide.subscription.v1 import subscription_pb2 as pb

from gateway.member_names import CREDENTIAL_KINDS, CREDENTIAL_MEMBERS
from gateway.translate.body_fields import BodyFields
from gateway.translate.enum_words import one_of

_TYPES = {kind: name for name, kind in CREDENTIAL_KINDS.items()}


def credential_of(fields: BodyFields) -> pb.SinkCredential:
    """Return the credential from the members of `sinkcredential`; only the members of its type are permitted."""
    kind = fields.word("credentialtype", CREDENTIAL_KINDS, "")
    if not kind:
        if not fields.has_value("credentialtype"):
            fields.problem("credentialtype", f"is required; it {one_of(CREDENTIAL_KINDS)}")
        fields.ignore(*(member for members in CREDENTIAL_MEMBERS.values() for member in members))
        return pb.SinkCredential()
    members = {field: fields.text(member) for member, field in CREDENTIAL_MEMBERS[kind].items()}
    match kind:
        case "plain":
            return pb.SinkCredential(plain=pb.PlainCredential(**members))
        case "access_token":
            return pb.SinkCredential(access_token=pb.AccessTokenCredential(**members))
        case "header":
            return pb.SinkCredential(header=pb.HeaderCredential(**members))
        case "oauth2":
            return pb.SinkCredential(oauth2=pb.OAuth2Credential(**members))
        case _:
            return pb.SinkCredential(mtls=pb.MutualTlsCredential(**members))


def credential_json(credential: pb.SinkCredential) -> dict[str, object] | None:
    """Return a credential without its secret member, whatever the message holds; None if there is no credential."""
    kind = credential.WhichOneof("kind")
    if kind is None:
        return None
    *shown, _secret = CREDENTIAL_MEMBERS[kind].items()
    inner = getattr(credential, kind)
    return {"credentialtype": _TYPES[kind], **{member: getattr(inner, field) or None for member, field in shown}}


def credential_paths(credential: Mapping[str, object]) -> list[str]:
    """Return the contract's paths that a merge patch of `sinkcredential` changes: the members of its type that it names."""
    kind = CREDENTIAL_KINDS.get(str(credential.get("credentialtype")), "")
    return [f"sink_credential.{kind}.{field}" for member, field in CREDENTIAL_MEMBERS.get(kind, {}).items() if member in credential]
