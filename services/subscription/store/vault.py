"""Vault: seals secrets at rest, and hashes API keys with a key.

secrets, credentials, idempotency, access → [vault]

Law 1: every sealed value names the secret key that sealed it, and is bound to its place in the store (`context`), so that it can be
unsealed at no other place.
Law 2: the newest secret key seals and hashes; all known secret keys unseal, and recognise API keys. A secret key may be removed once no
value is sealed with it any more (`resealing.py`). The hash of an API key cannot be made anew without the clear text, so the pepper of a
removed secret key is kept, sealed with the newest one.
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
    """A sealed value cannot be unsealed: it belongs to another secret key or another place, or it is damaged."""

    def __init__(self) -> None:
        message = (
            "A stored secret is damaged and cannot be read; for a signing secret, rotate with an overlap of 0; for a credential, "
            "set it again."
        )
        super().__init__(Reason.STATE_CONFLICT, message)


@dataclass(frozen=True, slots=True)
class Sealed:
    """An encrypted value: the id of its secret key, and a box of nonce (12 bytes), ciphertext and tag (16 bytes)."""

    secret_key_id: str
    box: bytes


@dataclass(frozen=True, slots=True)
class KeyHash:
    """An API key's hash (32 bytes), and the id of the secret key that made the hash."""

    secret_key_id: str
    digest: bytes


@dataclass(frozen=True, slots=True)
class _Ring:
    """The ciphers and peppers that are derived from the secret keys, by the ids of the keys, the newest first."""

    ciphers: Mapping[str, AESGCM]
    peppers: Mapping[str, bytes]

    @classmethod
    def of(cls, secret_keys: Mapping[str, bytes]) -> Self:
        return cls(
            {name: AESGCM(_derived(key, b"hooktide seal v1")) for name, key in secret_keys.items()},
            {name: _derived(key, b"hooktide api key hash v1") for name, key in secret_keys.items()},
        )


class Vault:
    """Seals and unseals with AES-256-GCM, and hashes API keys with HMAC-SHA256, by keys that HKDF derives from the secret keys.

    Safe to use from several threads: each operation uses the secret keys of one moment.
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
        """Recognise API keys that a secret key hashed, even after that secret key is removed."""
        self._kept_peppers = {**self._kept_peppers, secret_key_id: pepper}

    def pepper(self, secret_key_id: str) -> bytes | None:
        """Return the pepper with which a secret key hashes API keys; None if it is unknown."""
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
        """Return the hash under which a new API key is stored."""
        name, pepper = next(iter(self._ring.peppers.items()))
        return KeyHash(name, _hash(pepper, key))

    def key_hashes(self, key: str) -> list[KeyHash]:
        """Return every hash under which an API key may be stored: one for each known pepper, of present and former secret keys."""
        return [KeyHash(name, _hash(pepper, key)) for name, pepper in {**self._kept_peppers, **self._ring.peppers}.items()]


def _seal(ring: _Ring, secret_key_id: str, clear: bytes, context: str) -> Sealed:
    nonce = os.urandom(_NONCE_BYTES)
    return Sealed(secret_key_id, nonce + ring.ciphers[secret_key_id].encrypt(nonce, clear, context.encode()))


def _derived(secret_key: bytes, purpose: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=_DERIVED_BYTES, salt=None, info=purpose).derive(secret_key)


def _hash(pepper: bytes, key: str) -> bytes:
    return hmac.new(pepper, key.encode(), hashlib.sha256).digest()
