import pytest

from services.subscription.rules.certificates import (
    CERTIFICATES_CHARS_MAX,
    PRIVATE_KEY_CHARS_MAX,
    certificates_problem,
    private_key_problem,
)
from tests.support.pem import DSA, KEYS, SHORT_RSA, certificate, private_key


@pytest.mark.parametrize("kind", KEYS)
def test_a_certificate_and_its_key_are_taken(kind: str) -> None:
    pem = certificate(KEYS[kind])
    assert certificates_problem(pem) is None
    assert private_key_problem(private_key(KEYS[kind]), pem) is None


def test_a_chain_is_taken_and_its_first_certificate_is_the_one_of_the_key() -> None:
    chain = certificate(KEYS["ec"]) + "\n" + certificate(KEYS["rsa"]).replace("\n", "\r\n")
    assert certificates_problem(chain) is None
    assert private_key_problem(private_key(KEYS["ec"]), chain) is None
    assert private_key_problem(private_key(KEYS["rsa"]), chain) == "must be the private key of the first certificate"


@pytest.mark.parametrize(
    ("pem", "words"),
    [
        ("", "nothing else"),
        ("certificate", "nothing else"),
        ("Subject: client\n" + certificate(KEYS["ec"]), "nothing else"),
        (certificate(KEYS["ec"]) + private_key(KEYS["ec"]), "belongs in the field for the private key"),
        (certificate(KEYS["ec"]).replace("MI", "AA", 1), "cannot be read"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "cannot be read"),
        (certificate(KEYS["ed25519"]) * 51, "at most 50"),
        ("x" * (CERTIFICATES_CHARS_MAX + 1), "at most"),
    ],
)
def test_what_is_no_list_of_certificates_is_refused(pem: str, words: str) -> None:
    assert words in str(certificates_problem(pem))


@pytest.mark.parametrize(
    ("pem", "words"),
    [
        ("key", "a private key in PEM"),
        (certificate(KEYS["ec"]), "a private key in PEM"),
        (private_key(KEYS["ec"], b"open sesame"), "passphrase"),
        (private_key(KEYS["rsa"]), "the first certificate"),
        (private_key(SHORT_RSA), "2048 bits"),
        (private_key(DSA), "RSA, elliptic curve or Ed25519"),
        ("x" * (PRIVATE_KEY_CHARS_MAX + 1), "at most"),
    ],
)
def test_what_is_not_the_key_of_a_certificate_is_refused_without_being_repeated(pem: str, words: str) -> None:
    why = str(private_key_problem(pem, certificate(KEYS["ec"])))
    assert words in why
    assert pem[30:60] not in why or len(pem) < 60
