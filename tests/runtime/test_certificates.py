"""Certificates: files that cannot work are refused before they are used, in one line that names the setting."""

import datetime as dt
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat, load_pem_private_key

from services.runtime.configuration.reload import Reloadable
from services.runtime.configuration.settings import GatewaySettings
from services.runtime.configuration.settings_reader import read_settings
from services.runtime.service_process import StartError
from services.runtime.tls import client_tls, server_tls
from tests.tls.authority import Authority

DAY = dt.timedelta(days=1)


def settings(**values: Path) -> Reloadable[GatewaySettings]:
    return Reloadable(read_settings(GatewaySettings, {f"HOOKTIDE_{name}": str(value) for name, value in values.items()}))


def refusal(attempt: Callable[[], object]) -> str:
    with pytest.raises(StartError) as caught:
        attempt()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def refused_pair(cert: Path, key: Path) -> str:
    return refusal(lambda: server_tls(settings(GATEWAY_TLS_CERT_FILE=cert, GATEWAY_TLS_KEY_FILE=key), "gateway"))


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "ours")


def test_without_files_there_is_no_tls() -> None:
    assert server_tls(settings(), "gateway") is None
    assert client_tls(settings()) is None


def test_half_a_pair_is_refused(authority: Authority) -> None:
    issued = authority.issue()
    half = "HOOKTIDE_GATEWAY_TLS_{}_FILE is missing, but HOOKTIDE_GATEWAY_TLS_{}_FILE is set; set both or neither"
    assert refusal(lambda: server_tls(settings(GATEWAY_TLS_CERT_FILE=issued.cert), "gateway")) == half.format("KEY", "CERT")
    assert refusal(lambda: server_tls(settings(GATEWAY_TLS_KEY_FILE=issued.key), "gateway")) == half.format("CERT", "KEY")
    assert "HOOKTIDE_TLS_KEY_FILE is missing" in refusal(
        lambda: client_tls(settings(TLS_CA_FILE=authority.file, TLS_CERT_FILE=issued.cert))
    )


def test_what_only_tls_can_use_is_refused_without_tls(authority: Authority) -> None:
    issued = authority.issue()
    alone = refusal(lambda: server_tls(settings(GATEWAY_TLS_CLIENT_CA_FILE=authority.file), "gateway"))
    assert alone.startswith("HOOKTIDE_GATEWAY_TLS_CLIENT_CA_FILE needs HOOKTIDE_GATEWAY_TLS_CERT_FILE")
    shown = refusal(lambda: client_tls(settings(TLS_CERT_FILE=issued.cert, TLS_KEY_FILE=issued.key)))
    assert shown.startswith("HOOKTIDE_TLS_CERT_FILE needs HOOKTIDE_TLS_CA_FILE")


def test_the_key_of_another_certificate_is_refused(authority: Authority) -> None:
    one, other = authority.issue(), authority.issue()
    why = refused_pair(one.cert, other.key)
    assert why.startswith(
        f"HOOKTIDE_GATEWAY_TLS_KEY_FILE: {other.key}: the key is not the private key of the first certificate in {one.cert}"
    )


@pytest.mark.parametrize(("begins", "ends_in", "why"), [(-9 * DAY, -DAY, "expired at 20"), (DAY, 9 * DAY, "is not valid before 20")])
def test_a_certificate_that_is_not_valid_now_is_refused(
    authority: Authority, begins: dt.timedelta, ends_in: dt.timedelta, why: str
) -> None:
    issued = authority.issue(begins=begins, ends_in=ends_in)
    assert why in refused_pair(issued.cert, issued.key)


@pytest.mark.parametrize(
    "content", [None, b"", b"no certificate", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", b"\xff\x00"]
)
@pytest.mark.parametrize("which", ["cert", "key"])
def test_a_file_that_is_missing_or_holds_something_else_is_refused(authority: Authority, which: str, content: bytes | None) -> None:
    issued = authority.issue()
    file = getattr(issued, which)
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    why = refused_pair(issued.cert, issued.key)
    assert why.startswith(f"HOOKTIDE_GATEWAY_TLS_{which.upper()}_FILE: {file}: ")
    assert ("cannot be read: No such file or directory" if content is None else "the file has no ") in why


def test_a_key_with_a_passphrase_is_refused(authority: Authority) -> None:
    issued = authority.issue()
    key = load_pem_private_key(issued.key.read_bytes(), None)
    issued.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"hunter2")))
    assert (
        refused_pair(issued.cert, issued.key)
        == f"HOOKTIDE_GATEWAY_TLS_KEY_FILE: {issued.key}: the private key has a passphrase; write the key without a passphrase"
    )


def test_authorities_that_are_none_are_refused(authority: Authority, tmp_path: Path) -> None:
    authority.file.write_text("none")
    assert "HOOKTIDE_TLS_CA_FILE" in refusal(lambda: client_tls(settings(TLS_CA_FILE=authority.file)))
    expired = Authority(tmp_path, "old").issue(ends_in=-DAY)
    assert refusal(lambda: client_tls(settings(TLS_CA_FILE=expired.cert))).endswith("all certificates in the file have expired; renew them")
