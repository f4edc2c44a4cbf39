import base64
from pathlib import Path

import pytest
from pydantic import ValidationError

from services.runtime.configuration.common_settings import Settings
from services.runtime.configuration.settings import ALL, DeliverySettings, GatewaySettings, IngestSettings, SubscriptionSettings
from services.runtime.configuration.settings_reader import read_settings
from services.runtime.database import database_path
from services.runtime.service_process import StartError

KEY = base64.b64encode(bytes(range(32))).decode()


def mistakes(kind: type[Settings], environ: dict[str, str]) -> list[str]:
    with pytest.raises(StartError) as caught:
        read_settings(kind, environ)
    return [line.strip() for line in str(caught.value).splitlines()]


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


def test_each_mistake_is_one_line_that_names_its_variable() -> None:
    lines = mistakes(
        DeliverySettings,
        {
            "HOOKTIDE_DELIVERY_LISTEN": "50053",
            "HOOKTIDE_DELIVERY_ADMIN_LISTEN": "127.0.0.1:70000",
            "HOOKTIDE_DELIVERY_IN_FLIGHT_MAX": "0",
            "HOOKTIDE_DELIVERY_RETRY_DELAYS_SECONDS": "5,soon",
            "HOOKTIDE_LOG_LEVEL": "loud",
            "HOOKTIDE_DELIVRY_LISTEN": "127.0.0.1:1",
            "HOOKTIDE_QUITE_ELSE": "1",
        },
    )
    names = [line.partition("=")[0].partition(" ")[0] for line in lines]
    assert set(names) == {
        "HOOKTIDE_DELIVERY_LISTEN",
        "HOOKTIDE_DELIVERY_ADMIN_LISTEN",
        "HOOKTIDE_DELIVERY_IN_FLIGHT_MAX",
        "HOOKTIDE_DELIVERY_RETRY_DELAYS_SECONDS",
        "HOOKTIDE_LOG_LEVEL",
        "HOOKTIDE_DELIVRY_LISTEN",
        "HOOKTIDE_QUITE_ELSE",
    }
    assert len(lines) == 7


def test_a_misspelt_name_is_told_what_it_is_nearest_to() -> None:
    (line,) = mistakes(GatewaySettings, {"HOOKTIDE_GATEWAY_LISTN": "127.0.0.1:1"})
    assert "HOOKTIDE_GATEWAY_LISTEN" in line


def test_a_name_that_is_near_to_none_is_told_where_they_all_stand() -> None:
    (line,) = mistakes(GatewaySettings, {"HOOKTIDE_FOO": "1"})
    assert line == "HOOKTIDE_FOO is not a setting; see the table in README.md"


def test_another_services_settings_are_no_mistake() -> None:
    assert read_settings(GatewaySettings, {"HOOKTIDE_DELIVERY_IN_FLIGHT_MAX": "7"})


@pytest.mark.parametrize("delays", ["0", "-1", "700000", "nan", "inf", ""])
def test_delays_are_positive_and_at_most_a_week(delays: str) -> None:
    environ = {"HOOKTIDE_DELIVERY_RETRY_DELAYS_SECONDS": delays}
    if delays:
        assert len(mistakes(DeliverySettings, environ)) == 1
    else:
        assert len(read_settings(DeliverySettings, environ).delivery_retry_delays_seconds) == 12


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


def test_what_sinks_may_have_is_read_in_the_forms_that_the_table_names() -> None:
    settings = read_settings(
        SubscriptionSettings,
        {
            "HOOKTIDE_SINK_DENY": "198.18.0.0/15, 2001:db8::/32",
            "HOOKTIDE_SINK_PORTS": "443, 8443,",
            "HOOKTIDE_SINK_HANDSHAKE": "best_effort",
            "HOOKTIDE_ORIGIN": "Hooks.Example.com",
        },
    )
    assert settings.sink_deny == ("198.18.0.0/15", "2001:db8::/32")
    assert settings.sink_ports == (443, 8443)
    assert (settings.sink_handshake, settings.origin) == ("best_effort", "hooks.example.com")
    assert read_settings(DeliverySettings, {"HOOKTIDE_PUBLIC_URL": "https://e.example/base/"}).public_url == "https://e.example/base"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SINK_PORTS", "https"),
        ("SINK_PORTS", "443,0"),
        ("SINK_PORTS", "65536"),
        ("SINK_HANDSHAKE", "maybe"),
        ("ORIGIN", "https://hooks.example.com"),
        ("ORIGIN", "hooks_example"),
        ("ORIGIN", "a" * 64 + ".example"),
        ("PUBLIC_URL", "events.example.com"),
        ("PUBLIC_URL", "https://events.example.com/?x"),
    ],
)
def test_a_wrong_value_for_sinks_is_one_line_that_names_its_variable(name: str, value: str) -> None:
    kind = DeliverySettings if name == "PUBLIC_URL" else SubscriptionSettings
    (line,) = mistakes(kind, {f"HOOKTIDE_{name}": value})
    assert line.startswith(f"HOOKTIDE_{name}={value}")


def test_a_wrong_url_is_shown_without_whom_it_names() -> None:
    (line,) = mistakes(DeliverySettings, {"HOOKTIDE_PUBLIC_URL": "https://hunter2@events.example.com"})
    assert line.startswith("HOOKTIDE_PUBLIC_URL=https://...@events.example.com: ")
    (line,) = mistakes(DeliverySettings, {"HOOKTIDE_DELIVERY_PROXY": "http://me:hunter2@proxy.example"})
    assert line.startswith("HOOKTIDE_DELIVERY_PROXY=http://...@proxy.example: ")


FILED = [
    (SubscriptionSettings, "SUBSCRIPTION_DATABASE_URL", "sqlite:////var/lib/s.db"),
    (IngestSettings, "INGEST_DATABASE_URL", "sqlite:////var/lib/i.db"),
    (DeliverySettings, "DELIVERY_DATABASE_URL", "sqlite:////var/lib/d.db"),
    (DeliverySettings, "DELIVERY_PROXY", "http://me:hunter2@proxy.example:3128"),
]


@pytest.mark.parametrize(("kind", "name", "value"), FILED)
def test_whatever_may_hold_a_password_can_stand_in_a_file(tmp_path: Path, kind: type[Settings], name: str, value: str) -> None:
    file = tmp_path / "value"
    file.write_text(f"{value}\n")
    read = read_settings(kind, {f"HOOKTIDE_{name}_FILE": str(file)})
    assert getattr(read, name.lower()) == value
    assert "hunter2" not in repr(read)
    both = read_settings(kind, {f"HOOKTIDE_{name}_FILE": str(file), f"HOOKTIDE_{name}": value.replace("hunter2", "first")})
    assert getattr(both, name.lower()) == value.replace("hunter2", "first")
    file.unlink()
    (line,) = mistakes(kind, {f"HOOKTIDE_{name}_FILE": str(file)})
    assert line == f"HOOKTIDE_{name}_FILE={file}: the file cannot be read: No such file or directory; name a file with the value"


@pytest.mark.parametrize("content", ["hunter2", "http://me:hunter2@proxy.example", b"hunter2\xff", ""])
def test_what_stands_in_a_file_is_never_shown(tmp_path: Path, content: str | bytes) -> None:
    file = tmp_path / "value"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    (line,) = mistakes(DeliverySettings, {"HOOKTIDE_DELIVERY_PROXY_FILE": str(file)})
    assert line.startswith("HOOKTIDE_DELIVERY_PROXY_FILE")
    assert "hunter2" not in line


@pytest.mark.parametrize(
    "url",
    ["postgresql://me:hunter2@db/x", "sqlite:///me:hunter2@db/x", "sqlite:////tmp/x.db?password=hunter2", "hunter2", "sqlite://hunter2@/x"],
)
def test_a_database_url_that_is_none_of_ours_is_refused_without_its_password(tmp_path: Path, url: str) -> None:
    with pytest.raises(StartError) as caught:
        database_path(url, tmp_path, "ingest")
    assert str(caught.value).startswith("HOOKTIDE_INGEST_DATABASE_URL: ")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("value", ["proxy.example", "10.0.0.1/8", "10.0.0.0/8,unix:/run/p.sock"])
def test_a_proxy_that_is_no_address_range_is_one_line(value: str) -> None:
    (line,) = mistakes(GatewaySettings, {"HOOKTIDE_TRUSTED_PROXIES": value})
    assert line.startswith(f"HOOKTIDE_TRUSTED_PROXIES={value}: ")
    assert line.endswith("; write for example 10.0.0.0/8")


def test_trusted_proxies_are_address_ranges_and_the_peers_of_a_unix_socket() -> None:
    proxies = read_settings(GatewaySettings, {"HOOKTIDE_TRUSTED_PROXIES": "10.0.0.0/8, 2001:db8::1,unix"}).proxies()
    assert [proxies.trusts(peer) for peer in ("10.1.2.3", "2001:db8::1", "", "2001:db8::2", "11.0.0.1")] == [True] * 3 + [False] * 2
    assert not read_settings(GatewaySettings, {}).proxies().trusts("")
