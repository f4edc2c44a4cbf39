from services.delivery.request.credentials import AccessToken, Header, OAuth2, Plain
from services.delivery.request.sink_fingerprint import sink_fingerprint

CREDENTIALS = (
    None,
    Plain("a", "b"),
    Plain("a", "c"),
    AccessToken("a", "b"),
    Header("a", "b"),
    OAuth2("https://a", "b", "c", "d"),
    OAuth2("https://a", "b", "c", "e"),
)


def test_another_sink_or_another_credential_has_another_fingerprint() -> None:
    prints = {sink_fingerprint(revision, credential) for revision in (1, 2) for credential in CREDENTIALS}
    assert len(prints) == 2 * len(CREDENTIALS)
    assert 0 not in prints


def test_every_process_finds_the_same_fingerprint() -> None:
    """It stands in the ledger."""
    assert sink_fingerprint(3, None) == 3 << 16
    assert sink_fingerprint(3, AccessToken("token", "bearer")) == 3 << 16 | 0x8186


def test_a_fingerprint_fits_into_a_column_of_64_bits() -> None:
    """The revision counts the changes of a registry."""
    assert sink_fingerprint((1 << 46) - 1, CREDENTIALS[1]) < 1 << 63
