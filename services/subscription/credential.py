"""Credential: how requests authenticate to a sink, and how an update is merged into the stored credential.

server → [credential] → store

Law 1: pure. Every kind has members that are shown and exactly one that is secret; the secret is never stored with the others.
Law 2: if an update does not give the secret again, and the kind stays the same, the secret stays the same.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import Enum

SECTION = "sink_credential"


class CredentialKind(Enum):
    """The kinds of credentials; the values are their names in the contract."""

    PLAIN = "plain"
    ACCESS_TOKEN = "access_token"  # noqa: S105 - a name, not a token
    HEADER = "header"
    OAUTH2 = "oauth2"
    MTLS = "mtls"


SHOWN: Mapping[CredentialKind, tuple[str, ...]] = {
    CredentialKind.PLAIN: ("identifier",),
    CredentialKind.ACCESS_TOKEN: ("token_type",),
    CredentialKind.HEADER: ("name",),
    CredentialKind.OAUTH2: ("token_url", "client_id", "scope"),
    CredentialKind.MTLS: ("certificate",),
}
SECRET: Mapping[CredentialKind, str] = {
    CredentialKind.PLAIN: "secret",
    CredentialKind.ACCESS_TOKEN: "token",
    CredentialKind.HEADER: "value",
    CredentialKind.OAUTH2: "client_secret",
    CredentialKind.MTLS: "private_key",
}
# The paths that an update may name: the whole credential, or one member of one kind.
PATHS = frozenset({SECTION, *(f"{SECTION}.{kind.value}.{member}" for kind in CredentialKind for member in (*SHOWN[kind], SECRET[kind]))})


@dataclass(frozen=True, slots=True)
class Credential:
    """A credential as its owner sees it: all members except the secret one."""

    kind: CredentialKind
    shown: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class SecretCredential:
    """A credential with its secret member."""

    credential: Credential
    secret: str = field(repr=False)

    @property
    def members(self) -> dict[str, str]:
        """All members by their names in the contract."""
        return {**self.credential.shown, SECRET[self.credential.kind]: self.secret}


def credential_of(kind: CredentialKind, members: Mapping[str, str]) -> SecretCredential:
    """Return the credential with these members; missing members become empty, or the default of their kind."""
    shown = {name: members.get(name, "") for name in SHOWN[kind]}
    match kind:
        case CredentialKind.ACCESS_TOKEN:
            shown["token_type"] = shown["token_type"] or "Bearer"
        case CredentialKind.HEADER:
            shown["name"] = shown["name"].lower()
        case _:
            pass
    return SecretCredential(Credential(kind, shown), members.get(SECRET[kind], ""))


def merge(stored: SecretCredential | None, wanted: SecretCredential | None, paths: Collection[str]) -> SecretCredential | None:
    """Return the credential to store after an update that names `paths`; None for no credential.

    If `paths` names the section, the update replaces the whole credential; if it gives no secret and the kind is the same, the stored
    secret stays. If `paths` names single members, the update puts them into the stored credential, or into an empty one if the stored
    one is of another kind. Paths outside `PATHS` have no effect.
    """
    named = [path for path in paths if path in PATHS]
    if SECTION in named:
        if wanted is None or wanted.secret or stored is None or stored.credential.kind is not wanted.credential.kind:
            return wanted
        return SecretCredential(wanted.credential, stored.secret)
    if not named:
        return stored
    kind = CredentialKind(named[0].split(".")[1])
    kept = stored.members if stored is not None and stored.credential.kind is kind else {}
    given = wanted.members if wanted is not None and wanted.credential.kind is kind else {}
    return credential_of(kind, kept | {name: given.get(name, "") for name in (path.split(".")[2] for path in named)})
