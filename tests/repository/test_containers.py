import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from services.runtime.configuration.common_settings import Settings
from services.runtime.configuration.default_ports import ADMIN_PORTS, PORTS
from services.runtime.configuration.settings import ALL, DeliverySettings, GatewaySettings, IngestSettings, SubscriptionSettings
from services.runtime.configuration.settings_reader import misspelt, read_settings

ROOT = Path(__file__).parents[2]
SETTINGS: dict[str, type[Settings]] = {
    "subscription": SubscriptionSettings,
    "ingest": IngestSettings,
    "delivery": DeliverySettings,
    "gateway": GatewaySettings,
}
NEEDS = {
    "subscription": set(),
    "ingest": {"subscription"},
    "delivery": {"subscription", "ingest"},
    "gateway": {"subscription", "ingest", "delivery"},
}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """The compose file as the real Compose command reads it."""
    command = Path(sys.executable).with_name("docker-compose")
    answer = subprocess.run(  # noqa: S603 - the pinned command of this environment
        [command, "--file", ROOT / "docker-compose.yml", "config", "--format", "json"], check=True, capture_output=True, timeout=30
    )
    config: dict[str, Any] = json.loads(answer.stdout)
    return config


@pytest.fixture(scope="module")
def dockerfile() -> list[str]:
    return re.sub(r"\\\n\s*", "", (ROOT / "Dockerfile").read_text()).splitlines()


def test_each_service_is_a_container_of_the_one_image(compose: dict[str, Any]) -> None:
    services = compose["services"]

    assert services.keys() == SETTINGS.keys()
    assert len(ALL) == len(SETTINGS)
    assert {service["image"] for service in services.values()} == {"hooktide:0.1.0"}
    assert {name: service["command"] for name, service in services.items()} == {name: ["serve", name] for name in SETTINGS}


def test_only_the_gateway_and_ingest_are_published_and_only_on_this_host(compose: dict[str, Any]) -> None:
    published = {
        (name, port["host_ip"], port["published"], port["target"])
        for name, service in compose["services"].items()
        for port in service.get("ports", ())
    }

    assert published == {("gateway", "127.0.0.1", "8080", 8080), ("ingest", "127.0.0.1", "50052", 50052)}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_containers_environment_is_what_its_service_reads(compose: dict[str, Any], name: str) -> None:
    """No variable is misspelt or of another service, and every address is reachable from the other containers."""
    environ = {key: value for key, value in compose["services"][name]["environment"].items() if key.startswith("HOOKTIDE_")}
    fields = {f"HOOKTIDE_{field.upper()}" for field in SETTINGS[name].model_fields}
    settings = read_settings(SETTINGS[name], environ)
    listen, admin = PORTS[name], ADMIN_PORTS[name]

    assert misspelt(environ) == []
    assert environ.keys() <= fields
    assert getattr(settings, f"{name}_listen") == f"0.0.0.0:{listen}"
    assert getattr(settings, f"{name}_admin_listen") == f"0.0.0.0:{admin}"
    assert compose["services"][name]["environment"]["ADMIN_PORT"] == str(admin)
    for other in NEEDS[name]:
        assert getattr(settings, f"{other}_target") == f"{other}:{PORTS[other]}"


@pytest.mark.parametrize("name", SETTINGS)
def test_a_container_starts_after_what_it_needs_and_says_when_it_is_ready(compose: dict[str, Any], name: str) -> None:
    service = compose["services"][name]

    assert {(other, need["condition"]) for other, need in service.get("depends_on", {}).items()} == {
        (other, "service_healthy") for other in NEEDS[name]
    }
    assert service["healthcheck"]["test"][:3] == ["CMD", "python", "-c"]
    assert "/readyz" in service["healthcheck"]["test"][3]
    assert service["stop_grace_period"] == "30s"


@pytest.mark.parametrize("name", SETTINGS)
def test_a_container_may_do_no_more_than_it_must(compose: dict[str, Any], name: str) -> None:
    service = compose["services"][name]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    assert "user" not in service


def test_each_service_with_data_has_a_volume_of_its_own(compose: dict[str, Any]) -> None:
    volumes = {
        name: [(volume["type"], volume["source"], volume["target"]) for volume in service.get("volumes", ())]
        for name, service in compose["services"].items()
    }

    assert volumes.pop("gateway") == []
    assert volumes == {name: [("volume", f"{name}-data", "/var/lib/hooktide")] for name in ("subscription", "ingest", "delivery")}


def test_a_secret_reaches_only_the_services_that_need_it_and_only_as_a_file(compose: dict[str, Any]) -> None:
    given = {name: {secret["source"] for secret in service["secrets"]} for name, service in compose["services"].items()}
    values = [
        value
        for service in compose["services"].values()
        for key, value in service["environment"].items()
        if key.endswith(("_TOKEN", "_KEY"))
    ]

    assert given.pop("subscription") == {"service_token", "secret_key"}
    assert all(names == {"service_token"} for names in given.values())
    assert values == []


def test_the_image_runs_as_a_user_without_rights_and_is_pinned(dockerfile: list[str]) -> None:
    bases = [line.split()[1] for line in dockerfile if line.startswith("FROM ")]
    final = dockerfile[max(number for number, line in enumerate(dockerfile) if line.startswith("FROM ")) :]

    assert set(bases) == {"python:3.13-slim-bookworm"}
    assert [line for line in final if line.startswith("USER ")] == ["USER 10001"]
    assert final.index("USER 10001") < final.index('ENTRYPOINT ["hooktide"]')
    assert any("--uid 10001" in line for line in final)
    assert not any(line.startswith("EXPOSE") or "pip install" in line for line in final)


def test_the_image_is_built_with_the_uv_that_make_uses(dockerfile: list[str]) -> None:
    version = re.search(r"uv_version=([\d.]+)", (ROOT / ".ci/setup").read_text())

    assert version is not None
    assert any(f"uv=={version[1]}" in line for line in dockerfile)
    assert all("--frozen" in line and "--no-dev" in line for line in dockerfile if "uv sync" in line)


def test_the_compose_file_shows_how_to_require_the_handshake_and_to_run_several_workers() -> None:
    """Settings that the file shows in comments must exist."""
    commented = dict(re.findall(r"# (HOOKTIDE_[A-Z_]+): (\S+)", (ROOT / "docker-compose.yml").read_text()))
    commented = {name: value.strip('"') for name, value in commented.items()}
    assert commented == {
        "HOOKTIDE_SINK_HANDSHAKE": "required",
        "HOOKTIDE_ORIGIN": "hooks.example.com",
        "HOOKTIDE_DELIVERY_WORKERS": "4",
    }
    assert read_settings(SubscriptionSettings, commented).origin == "hooks.example.com"
    assert read_settings(DeliverySettings, commented).delivery_workers == 4
