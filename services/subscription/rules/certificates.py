"""Certificates: checks the certificates and private keys (PEM) that a consumer gives, before they are stored.

settings_validation, credential_validation → [certificates]

Law: pure, and no message repeats any part of a private key.
"""

import re

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

CERTIFICATES_CHARS_MAX = 64 * 1024
CERTIFICATES_MAX = 50
PRIVATE_KEY_CHARS_MAX = 16 * 1024
RSA_BITS_MIN = 2048

_BLOCK = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----\s[A-Za-z0-9+/=\s]+?-----END \1-----")
_CERTIFICATE = "CERTIFICATE"


def certificates_problem(pem: str) -> str | None:
    """Return what is wrong with a list of certificates, as a predicate for the field's name; None if the list is valid."""
    if len(pem) > CERTIFICATES_CHARS_MAX:
        return f"must be at most {CERTIFICATES_CHARS_MAX} characters"
    labels = _BLOCK.findall(pem)
    if not labels or _BLOCK.sub("", pem).strip():
        return "must be PEM certificates and nothing else: -----BEGIN CERTIFICATE-----…"
    # Any other block might be a private key, which every reader of the subscription would see.
    if set(labels) != {_CERTIFICATE}:
        return "must have certificates only; a private key belongs in the field for the private key"
    if len(labels) > CERTIFICATES_MAX:
        return f"must be at most {CERTIFICATES_MAX} certificates"
    try:
        for certificate in x509.load_pem_x509_certificates(pem.encode()):
            certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return "must be PEM certificates; one of them cannot be read"
    return None


def private_key_problem(pem: str, certificate: str) -> str | None:
    """Return what is wrong with a private key (PEM) for a well-formed certificate; None if the key belongs to the certificate."""
    if len(pem) > PRIVATE_KEY_CHARS_MAX:
        return f"must be at most {PRIVATE_KEY_CHARS_MAX} characters"
    try:
        key = load_pem_private_key(pem.encode(), password=None)
    except TypeError:
        return "must not be protected by a passphrase"
    except (ValueError, UnsupportedAlgorithm):
        return "must be a private key in PEM: -----BEGIN PRIVATE KEY-----…"
    match key:
        case RSAPrivateKey() if key.key_size < RSA_BITS_MIN:
            return f"must have at least {RSA_BITS_MIN} bits"
        case RSAPrivateKey() | EllipticCurvePrivateKey() | Ed25519PrivateKey():
            leaf = x509.load_pem_x509_certificates(certificate.encode())[0]
            return None if _form(leaf.public_key()) == _form(key.public_key()) else "must be the private key of the first certificate"
        case _:
            return "must be an RSA, elliptic curve or Ed25519 key"


def _form(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
