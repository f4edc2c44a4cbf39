"""Service links: the variables that Kubernetes puts into every container do not stop a service."""

import pytest

from services.runtime.configuration.common_settings import Settings
from services.runtime.configuration.service_links import is_service_link, without_service_links
from services.runtime.configuration.settings import ALL, CLIENT_VARIABLES, GatewaySettings
from services.runtime.configuration.settings_reader import read_settings, variable
from services.runtime.service_process import StartError


def links(service: str, *, host: str = "10.96.0.7", port: int = 8080, protocol: str = "tcp") -> dict[str, str]:
    """Return the variables that Kubernetes sets for a Service with one named port, by its documentation."""
    name, shown = service.upper().replace("-", "_"), f"[{host}]" if ":" in host else host
    url, long_name = f"{protocol}://{shown}:{port}", f"{name}_PORT_{port}_{protocol.upper()}"
    return {
        f"{name}_SERVICE_HOST": host,
        f"{name}_SERVICE_PORT": str(port),
        f"{name}_SERVICE_PORT_HTTP_ADMIN": str(port),
        f"{name}_PORT": url,
        long_name: url,
        f"{long_name}_PROTO": protocol,
        f"{long_name}_PORT": str(port),
        f"{long_name}_ADDR": host,
    }


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize(
    "service",
    [
        "hooktide",
        "hooktide-gateway",
        "hooktide-subscription",
        "hooktide-ingest",
        "hooktide-delivery",
        "hooktide-delivery-admin",
        "hooktide-service",
    ],
)
def test_the_links_of_a_kubernetes_service_are_no_settings(kind: type[Settings], service: str) -> None:
    for environ in (links(service), links(service, host="fd00:10:96::7", port=50051), links(service, port=53, protocol="udp")):
        assert all(is_service_link(name, value) for name, value in environ.items())
        assert read_settings(kind, environ) == read_settings(kind, {})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HOOKTIDE_GATEWAY_PORT", "8080"),
        ("HOOKTIDE_GATEWAY_PORT", "tcp://gateway:8080"),
        ("HOOKTIDE_GATEWAY_PORT", "tcp://10.0.0.7:99999"),
        ("HOOKTIDE_SERVICE_HOST", "gateway"),
        ("HOOKTIDE_GATEWAY_SERVICE_PORT", "http"),
        ("HOOKTIDE_SINK_PORT", "443"),
        ("HOOKTIDE_SINK_SERVICE_PORT", "9" * 5000),
        ("HOOKTIDE_GATEWAY_LISTEN_HOST", "10.0.0.7"),
        ("HOOKTIDE_GATEWAY_PORT_8080_TCP_PROTO", "http"),
        ("HOOKTIDE_GATEWAY_PORT_8080_TCP_ADDR", "gateway"),
    ],
)
def test_a_misspelt_setting_that_looks_like_a_link_is_still_reported(name: str, value: str) -> None:
    with pytest.raises(StartError, match=f"^{name} is not a setting"):
        read_settings(GatewaySettings, {name: value})


def test_no_setting_has_the_name_of_a_link() -> None:
    """Otherwise a variable that Kubernetes sets would be read as a setting."""
    values = ("10.0.0.7", "8080", "tcp", "tcp://10.0.0.7:8080")
    known = {variable(name) for kind in ALL for name in kind.model_fields} | CLIENT_VARIABLES
    assert [name for name in sorted(known) for value in values if is_service_link(name, value)] == []
    kept = {"HOOKTIDE_GATEWAY_LISTEN": "127.0.0.1:1", "GATEWAY_PORT": "tcp://10.0.0.7:80"}
    assert without_service_links(kept | links("hooktide-gateway")) == kept
