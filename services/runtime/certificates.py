"""Certificates: reads and checks PEM files, so that a file that cannot work is refused before it is used.

[certificates] → tls → listeners, channels

Law: each mistake is one line that names the setting and its file, and shows nothing of a key.
"""

import datetime as dt
import ssl
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from services.runtime.in_memory_file import open_unnamed, path_of
from services.runtime.service_process import StartError

_FILE_BYTES_MAX = 1024 * 1024


@dataclass(frozen=True, slots=True)
class NamedFile:
    """A file, and the environment variable that names it."""

    variable: str
    path: Path

    def read(self) -> bytes:
        """Return the file's content; raises `StartError` if it cannot be read."""
        try:
            with self.path.open("rb") as file:
                content = file.read(_FILE_BYTES_MAX + 1)
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else "this is not a valid path"
            raise self.wrong(f"the file cannot be read: {why}") from error
        if len(content) > _FILE_BYTES_MAX:
            raise self.wrong(f"the file is larger than {_FILE_BYTES_MAX} bytes")
        return content

    def wrong(self, what: str) -> StartError:
        """Return the error that says what is wrong with the file."""
        return StartError(f"{self.variable}: {self.path}: {what}")


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate with its chain, and its private key, both PEM."""

    chain_pem: bytes
    key_pem: bytes = field(repr=False)
    expires: dt.datetime
    """When the first of the chain's certificates expires (UTC)."""


def read_pair(certificate: NamedFile, key: NamedFile, now: dt.datetime) -> Pair:
    """Return a certificate and its key; raises `StartError` unless both can be read, belong together, and are valid at `now`."""
    chain_pem, key_pem = certificate.read(), key.read()
    chain = _parsed(certificate, chain_pem)
    for each in chain:
        if each.not_valid_after_utc <= now:
            raise certificate.wrong(f"the certificate of {_subject(each)} expired at {_shown(each.not_valid_after_utc)}; renew it")
        if each.not_valid_before_utc > now:
            raise certificate.wrong(
                f"the certificate of {_subject(each)} is not valid before {_shown(each.not_valid_before_utc)}; use a certificate "
                "that is valid now"
            )
    try:
        private = load_pem_private_key(key_pem, None)
    except TypeError:
        raise key.wrong("the private key has a passphrase; write the key without a passphrase") from None
    except Exception:  # noqa: BLE001 - many kinds of errors for an invalid key; none may show the content
        raise key.wrong("the file has no private key in PEM form; write the key as PEM") from None
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if private.public_key().public_bytes(*form) != chain[0].public_key().public_bytes(*form):
        raise key.wrong(
            f"the key is not the private key of the first certificate in {certificate.path}; name a certificate and its own key"
        )
    pair = Pair(chain_pem, key_pem, min(each.not_valid_after_utc for each in chain))
    try:
        show(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), chain_pem, key_pem)
    except ssl.SSLError as error:
        raise certificate.wrong(f"the certificate or key cannot be used: {error.reason or 'OpenSSL refuses it'}") from None
    return pair


def read_authorities(file: NamedFile, now: dt.datetime) -> bytes:
    """Return the PEM certificates of authorities; raises `StartError` unless one is valid at `now`."""
    pem = file.read()
    if not any(each.not_valid_after_utc > now for each in _parsed(file, pem)):
        raise file.wrong("all certificates in the file have expired; renew them")
    return pem


def show(context: ssl.SSLContext, chain_pem: bytes, key_pem: bytes) -> None:
    """Make a context show a certificate; raises `ssl.SSLError` if OpenSSL refuses it."""
    with open_unnamed(chain_pem) as chain, open_unnamed(key_pem) as key:
        context.load_cert_chain(path_of(chain), path_of(key), password=_no_passphrase)


def _parsed(file: NamedFile, pem: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except Exception:  # noqa: BLE001 - many kinds of errors for an invalid certificate
        raise file.wrong("the file has no certificate in PEM form; write the certificate as PEM") from None


def _subject(certificate: x509.Certificate) -> str:
    return ascii(certificate.subject.rfc4514_string()[:80])


def _shown(time: dt.datetime) -> str:
    return f"{time:%Y-%m-%dT%H:%M:%SZ}"


def _no_passphrase() -> bytes:
    """Answer for a key with a passphrase: without this, OpenSSL would ask the terminal."""
    return b""
