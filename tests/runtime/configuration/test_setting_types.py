import pytest

from services.runtime.configuration.settings import DeliverySettings, GatewaySettings, SubscriptionSettings
from services.runtime.configuration.settings_reader import read_settings
from tests.runtime.configuration.mistakes import mistakes


@pytest.mark.parametrize("delays", ["0", "-1", "700000", "nan", "inf", ""])
def test_delays_are_positive_and_at_most_a_week(delays: str) -> None:
    environ = {"HOOKTIDE_DELIVERY_RETRY_DELAYS_SECONDS": delays}
    if delays:
        assert len(mistakes(DeliverySettings, environ)) == 1
    else:
        assert len(read_settings(DeliverySettings, environ).delivery_retry_delays_seconds) == 12


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


@pytest.mark.parametrize("value", ["proxy.example", "10.0.0.1/8", "10.0.0.0/8,unix:/run/p.sock"])
def test_a_proxy_that_is_no_address_range_is_one_line(value: str) -> None:
    (line,) = mistakes(GatewaySettings, {"HOOKTIDE_TRUSTED_PROXIES": value})
    assert line.startswith(f"HOOKTIDE_TRUSTED_PROXIES={value}: ")
    assert line.endswith("; write for example 10.0.0.0/8")
