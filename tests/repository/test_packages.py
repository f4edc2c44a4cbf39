"""Packages: the two distributions declare what their code needs."""

import re
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
STUBS = ROOT / "protos" / "src" / "hooktide"


def declared(path: str) -> dict[str, Any]:
    project: dict[str, Any] = tomllib.loads((ROOT / path).read_text(encoding="utf-8"))["project"]
    return project


def lowest(project: dict[str, Any], package: str) -> tuple[int, ...]:
    """Return the lowest version of a package that a project declares."""
    (found,) = [match for line in project["dependencies"] if (match := re.match(rf"{re.escape(package)}>=([\d.]+)", line))]
    return tuple(map(int, found[1].split(".")))


def test_the_lowest_protobuf_and_grpcio_are_those_that_the_stubs_demand() -> None:
    """At its import, a stub refuses versions older than those that generated it."""
    contract = declared("protos/pyproject.toml")
    messages, calls = list(STUBS.rglob("*_pb2.py")), list(STUBS.rglob("*_pb2_grpc.py"))
    assert len(messages) > 5 < len(calls)
    for path in messages:
        demanded = re.search(r"ValidateProtobufRuntimeVersion\(\s*\S+,\s*(\d+),\s*(\d+),\s*(\d+),", path.read_text(encoding="utf-8"))
        assert demanded is not None, path
        assert lowest(contract, "protobuf") == tuple(map(int, demanded.groups())), path
    for path in calls:
        version = re.search(r"GRPC_GENERATED_VERSION = '([\d.]+)'", path.read_text(encoding="utf-8"))
        if version is not None:  # a file without a gRPC service names no version
            assert (*lowest(contract, "grpcio"), 0) == tuple(map(int, version[1].split("."))), path


def test_the_server_needs_the_contract_of_its_own_version() -> None:
    server, contract = declared("pyproject.toml"), declared("protos/pyproject.toml")
    assert f"hooktide=={contract['version']}" in server["dependencies"]
    assert server["version"] == contract["version"]


def test_the_command_has_the_distributions_name_too() -> None:
    server = declared("pyproject.toml")
    assert server["scripts"][server["name"]] == server["scripts"]["hooktide"]
