import base64
from pathlib import Path

import pytest
from pydantic import ValidationError

from services.runtime.configuration.common_settings import Settings
from services.runtime.configuration.settings import ALL, DeliverySettings, GatewaySettings, SubscriptionSettings
from services.runtime.configuration.settings_reader import read_settings
from services.runtime.service_process import StartError

KEY = base64.b64encode(bytes(range(32))).decode()


def refusal(settings: SubscriptionSettings) -> str:
    with pytest.raises(StartError) as caught:
        settings.secret_keys()
    return str(caught.value)


@pytest.mark.parametrize("kind", ALL)
def test_every_setting_has_a_default_and_a_description(kind: type[Settings]) -> None:
    assert read_settings(kind, {}) is not None
    assert all(field.description for field in kind.model_fields.values())


def test_settings_are_frozen() -> None:
    settings = read_settings(GatewaySettings, {})
    with pytest.raises(ValidationError):
        settings.gateway_listen = "127.0.0.1:1"  # type: ignore[misc]  # what mypy forbids too


def test_values_are_read_in_the_forms_that_the_table_names() -> None:
    settings = read_settings(
        DeliverySettings,
        {
            "HOOKTIDE_DATA_DIR": "/srv/data",
            "HOOKTIDE_SINK_ALLOW": " http, 127.0.0.0/8 ,",
            "HOOKTIDE_DELIVERY_RETRY_DELAYS_SECONDS": "0.5,30",
            "HOOKTIDE_DELIVERY_LISTEN": "unix:/run/d.sock",
            "HOOKTIDE_SUBSCRIPTION_TARGET": "dns:///registry:50051",
            "HOOKTIDE_LOG_LEVEL": "debug",
            "HOOKTIDE_INGEST_TARGET": "",
            "PATH": "/bin",
        },
    )
    assert settings.data_dir == Path("/srv/data")
    assert settings.sink_allow == ("http", "127.0.0.0/8")
    assert settings.delivery_retry_delays_seconds == (0.5, 30.0)
    assert settings.delivery_listen == "unix:/run/d.sock"
    assert settings.subscription_target == "dns:///registry:50051"
    assert settings.ingest_target == "127.0.0.1:50052"


def test_the_service_token_comes_from_its_variable_or_file(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("hts_a-token-out-of-a-file-for-all\n")
    assert read_settings(GatewaySettings, {"HOOKTIDE_SERVICE_TOKEN_FILE": str(file)}).token() == "hts_a-token-out-of-a-file-for-all"
    both = {"HOOKTIDE_SERVICE_TOKEN_FILE": str(file), "HOOKTIDE_SERVICE_TOKEN": "hts_a-token-out-of-the-variable"}
    assert read_settings(GatewaySettings, both).token() == "hts_a-token-out-of-the-variable"


@pytest.mark.parametrize(
    "environ",
    [{}, {"HOOKTIDE_SERVICE_TOKEN": "short"}, {"HOOKTIDE_SERVICE_TOKEN_FILE": "/nowhere/at/all"}, {"HOOKTIDE_SERVICE_TOKEN_FILE": "/"}],
)
def test_a_service_token_that_is_missing_or_short_is_one_clear_line(environ: dict[str, str]) -> None:
    with pytest.raises(StartError) as caught:
        read_settings(GatewaySettings, environ).token()
    assert "HOOKTIDE_SERVICE_TOKEN" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_secret_keys_come_newest_first_from_the_variable_or_a_file(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"new:{KEY}\nold:{base64.b64encode(bytes(32)).decode()}\n")
    from_file = read_settings(SubscriptionSettings, {"HOOKTIDE_SECRET_KEY_FILE": str(file)}).secret_keys()
    assert list(from_file) == ["new", "old"]
    assert from_file["new"] == bytes(range(32))
    value = f"new:{KEY}, old:{base64.b64encode(bytes(32)).decode()}"
    assert read_settings(SubscriptionSettings, {"HOOKTIDE_SECRET_KEY": value}).secret_keys() == from_file


@pytest.mark.parametrize("value", [KEY, f":{KEY}", f"k1:{KEY[:-4]}", "k1:", "k1:not-base64!", ",", f"good:{KEY},bad:{KEY[:20]}"])
def test_a_secret_key_that_is_none_is_refused_without_being_shown(value: str) -> None:
    message = refusal(read_settings(SubscriptionSettings, {"HOOKTIDE_SECRET_KEY": value}))
    assert "HOOKTIDE_SECRET_KEY" in message
    assert KEY[:20] not in message
    assert "\n" not in message


def test_a_missing_secret_key_says_how_to_set_one() -> None:
    assert "HOOKTIDE_SECRET_KEY_FILE" in refusal(read_settings(SubscriptionSettings, {}))


def test_trusted_proxies_are_address_ranges_and_the_peers_of_a_unix_socket() -> None:
    proxies = read_settings(GatewaySettings, {"HOOKTIDE_TRUSTED_PROXIES": "10.0.0.0/8, 2001:db8::1,unix"}).proxies()
    assert [proxies.trusts(peer) for peer in ("10.1.2.3", "2001:db8::1", "", "2001:db8::2", "11.0.0.1")] == [True] * 3 + [False] * 2
    assert not read_settings(GatewaySettings, {}).proxies().trusts("")
