"""Request settings: the limits and the TLS that follow from them."""

import pytest

from services.delivery.request.credentials import MutualTls, Plain
from services.delivery.request.request_settings import RequestSettings, rate_limit, tls_of
from services.delivery.transport.protocol import Tls


@pytest.mark.parametrize(
    ("granted", "configured", "limit"), [(None, None, None), (120, None, 2.0), (None, 0.5, 0.5), (120, 50, 2.0), (6000, 50, 50)]
)
def test_the_lower_limit_holds(granted: int | None, configured: float | None, limit: float | None) -> None:
    assert rate_limit(granted, configured) == limit


def test_only_own_authorities_and_a_client_certificate_need_tls_of_their_own() -> None:
    assert tls_of(RequestSettings()) is None
    assert tls_of(RequestSettings(credential=Plain("me", "sesame"))) is None
    assert tls_of(RequestSettings(ca_certificates="ca")) == Tls(b"ca", b"", b"")
    assert tls_of(RequestSettings(credential=MutualTls("certificate", "key"))) == Tls(b"", b"certificate", b"key")
