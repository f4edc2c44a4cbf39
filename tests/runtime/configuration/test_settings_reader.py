from services.runtime.configuration.settings import DeliverySettings, GatewaySettings
from services.runtime.configuration.settings_reader import read_settings
from tests.runtime.configuration.mistakes import mistakes


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
