"""Vault: secrets at rest, and API keys as keyed hashes.

server → [vault] → store

Law 1: every sealed value names the secret key it was sealed with and is bound to the place it stands at (`context`),
so that it opens nowhere else.
Law 2: the newest secret key seals and hashes; all known ones open and recognise. A secret key may go once nothing is sealed
with it any more (`store_resealing`). The hash of an API key cannot be made anew without the key, so the pepper of a secret key that goes is
kept, sealed with the newest one.
"""

import hashlib
import hmac
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from services.runtime.errors import Failure, Reason

_NONCE_BYTES = 12
_DERIVED_BYTES = 32


class UnsealError(Failure):
    """A sealed value that does not open: another secret key, another place, or damaged."""

    def __init__(self) -> None:
        message = "A stored secret is damaged and cannot be read; replace it: rotate with an overlap of 0, or give the credential anew."
        super().__init__(Reason.STATE_CONFLICT, message)


@dataclass(frozen=True, slots=True)
class Sealed:
    """An encrypted value: the id of its secret key, and nonce (12 bytes), ciphertext and tag (16 bytes) in one."""

    secret_key_id: str
    box: bytes


@dataclass(frozen=True, slots=True)
class KeyHash:
    """An API key's hash (32 bytes), and the id of the secret key that it was made with."""

    secret_key_id: str
    digest: bytes


@dataclass(frozen=True, slots=True)
class _Ring:
    """The secret keys in use, by their ids, the newest first, and what is derived from them."""

    ciphers: Mapping[str, AESGCM]
    peppers: Mapping[str, bytes]

    @classmethod
    def of(cls, secret_keys: Mapping[str, bytes]) -> Self:
        return cls(
            {name: AESGCM(_derived(key, b"hooktide seal v1")) for name, key in secret_keys.items()},
            {name: _derived(key, b"hooktide api key hash v1") for name, key in secret_keys.items()},
        )


class Vault:
    """Seals and opens with AES-256-GCM, hashes API keys with HMAC-SHA256, each by keys derived from the secret keys.

    Safe to use from several threads; each value is sealed, opened or hashed by the secret keys of one moment.
    """

    def __init__(self, secret_keys: Mapping[str, bytes]) -> None:
        """Take the secret keys (32 bytes each) by their ids, the newest first."""
        self._ring = _Ring.of(secret_keys)
        self._kept_peppers: Mapping[str, bytes] = {}

    @property
    def secret_key_ids(self) -> tuple[str, ...]:
        """The ids of the secret keys, the newest first."""
        return tuple(self._ring.ciphers)

    @property
    def newest(self) -> str:
        """The id of the secret key that seals and hashes."""
        return self.secret_key_ids[0]

    def replace(self, secret_keys: Mapping[str, bytes]) -> None:
        """Use other secret keys from now on."""
        self._ring = _Ring.of(secret_keys)

    def keep_pepper(self, secret_key_id: str, pepper: bytes) -> None:
        """Recognise API keys that were hashed by a secret key, also once that is gone."""
        self._kept_peppers = {**self._kept_peppers, secret_key_id: pepper}

    def pepper(self, secret_key_id: str) -> bytes | None:
        """Return what a secret key hashes API keys with, None where it is not known."""
        return self._ring.peppers.get(secret_key_id) or self._kept_peppers.get(secret_key_id)

    def seal(self, clear: bytes, context: str) -> Sealed:
        """Encrypt a value for the place `context`, with the newest secret key."""
        ring = self._ring
        return _seal(ring, next(iter(ring.ciphers)), clear, context)

    def seal_with(self, secret_key_id: str, clear: bytes, context: str) -> Sealed:
        """Encrypt a value for the place `context`, with the known secret key of that id."""
        return _seal(self._ring, secret_key_id, clear, context)

    def open(self, sealed: Sealed, context: str) -> bytes:
        """Decrypt a value that was sealed for `context`; raises `UnsealError`."""
        cipher = self._ring.ciphers.get(sealed.secret_key_id)
        if cipher is None:
            raise UnsealError
        try:
            return cipher.decrypt(sealed.box[:_NONCE_BYTES], sealed.box[_NONCE_BYTES:], context.encode())
        except (InvalidTag, ValueError):
            raise UnsealError from None

    def hash_key(self, key: str) -> KeyHash:
        """Return the hash that a new API key is stored by."""
        name, pepper = next(iter(self._ring.peppers.items()))
        return KeyHash(name, _hash(pepper, key))

    def key_hashes(self, key: str) -> list[KeyHash]:
        """Return every hash that an API key may be stored by: one for each secret key that is, or was, in use."""
        return [KeyHash(name, _hash(pepper, key)) for name, pepper in {**self._kept_peppers, **self._ring.peppers}.items()]


def _seal(ring: _Ring, secret_key_id: str, clear: bytes, context: str) -> Sealed:
    nonce = os.urandom(_NONCE_BYTES)
    return Sealed(secret_key_id, nonce + ring.ciphers[secret_key_id].encrypt(nonce, clear, context.encode()))


def _derived(secret_key: bytes, purpose: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=_DERIVED_BYTES, salt=None, info=purpose).derive(secret_key)


def _hash(pepper: bytes, key: str) -> bytes:
    return hmac.new(pepper, key.encode(), hashlib.sha256).digest()
