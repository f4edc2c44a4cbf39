"""Sink fingerprint: a number by which a later process knows whether a failure happened at the present sink, with the present credential.

request_settings → [sink_fingerprint] → dispatcher → ledger

Law 1: pure, and the same in every process.
Law 2: it gives away 16 bits of a credential at most, which is too little to guess a password by. So two credentials of one sink have the
same number once in 65,536 times.
"""

import dataclasses
import hashlib

import orjson

from services.delivery.request.credentials import Credential

_CREDENTIAL_BITS = 16


def sink_fingerprint(sink_revision: int, credential: Credential | None) -> int:
    """Return the fingerprint of a sink, identified by its revision, and of a credential. It is never 0: revisions begin with 1."""
    return sink_revision << _CREDENTIAL_BITS | (0 if credential is None else _digest(credential))


def _digest(credential: Credential) -> int:
    members = orjson.dumps([type(credential).__name__, *dataclasses.astuple(credential)])
    return int.from_bytes(hashlib.blake2b(members, digest_size=_CREDENTIAL_BITS // 8).digest(), "big")
