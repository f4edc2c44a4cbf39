"""Vault: secrets at rest, and API keys as keyed hashes.

server → [vault] → store

Law 1: every sealed value names the secret key it was sealed with and is bound to the place it stands at (`context`),
so that it opens nowhere else.
Law 2: the newest secret key seals and hashes; all known ones open and recognise. Retiring a secret key means that
nothing sealed or hashed with it is left: `Vault.open` of an unknown one is a bug, since the start refuses it.
"""

import hashlib
import hmac
import os
from collections.abc import Mapping
from dataclasses import dataclass

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


class Vault:
    """Seals and opens with AES-256-GCM, hashes API keys with HMAC-SHA256, each by keys derived from the secret keys."""

    def __init__(self, secret_keys: Mapping[str, bytes]) -> None:
        """Take the secret keys (32 bytes each) by their ids, the newest first."""
        self.secret_key_ids = tuple(secret_keys)
        self._newest = self.secret_key_ids[0]
        self._ciphers = {name: AESGCM(_derived(key, b"hooktide seal v1")) for name, key in secret_keys.items()}
        self._peppers = {name: _derived(key, b"hooktide api key hash v1") for name, key in secret_keys.items()}

    def seal(self, clear: bytes, context: str) -> Sealed:
        """Encrypt a value for the place `context`, with the newest secret key."""
        return self.seal_with(self._newest, clear, context)

    def seal_with(self, secret_key_id: str, clear: bytes, context: str) -> Sealed:
        """Encrypt a value for the place `context`, with the known secret key of that id."""
        nonce = os.urandom(_NONCE_BYTES)
        return Sealed(secret_key_id, nonce + self._ciphers[secret_key_id].encrypt(nonce, clear, context.encode()))

    def open(self, sealed: Sealed, context: str) -> bytes:
        """Decrypt a value that was sealed for `context`; raises `UnsealError`."""
        cipher = self._ciphers.get(sealed.secret_key_id)
        if cipher is None:
            raise UnsealError
        try:
            return cipher.decrypt(sealed.box[:_NONCE_BYTES], sealed.box[_NONCE_BYTES:], context.encode())
        except (InvalidTag, ValueError):
            raise UnsealError from None

    def hash_key(self, key: str) -> KeyHash:
        """Return the hash that a new API key is stored by."""
        return KeyHash(self._newest, _hash(self._peppers[self._newest], key))

    def key_hashes(self, key: str) -> list[KeyHash]:
        """Return every hash that an API key may be stored by: one for each known secret key."""
        return [KeyHash(name, _hash(pepper, key)) for name, pepper in self._peppers.items()]


def _derived(secret_key: bytes, purpose: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=_DERIVED_BYTES, salt=None, info=purpose).derive(secret_key)


def _hash(pepper: bytes, key: str) -> bytes:
    return hmac.new(pepper, key.encode(), hashlib.sha256).digest()
