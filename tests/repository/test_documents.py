"""Documents: what ARCHITECTURE.md and CONTRIBUTING.md say about the code's structure is so."""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from services.delivery.dispatch.lifecycle import SETTLED
from services.delivery.model import Phase
from tests.repository.test_files import project_files
from tests.repository.test_pure_modules import listed

ROOT = Path(__file__).parents[2]
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
DOCUMENTS = ("ARCHITECTURE.md", "CONTRIBUTING.md")
FOLDERS = ("protos/src/hooktide/", "services/", "gateway/", "tests/", "docs/")


def contract(name: str) -> dict[str, Any]:
    """Return an import-linter contract by its name."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    (found,) = [each for each in contracts if each["name"] == name]
    return dict(found)


def table(heading: str) -> list[list[str]]:
    """Return the rows of the first table below a heading, as cells."""
    section = ARCHITECTURE.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows[2:]]


def places(cell: str, base: str = "") -> Iterator[tuple[str, str]]:
    """Yield each path that a cell names, and the words in brackets behind it; a name alone is in the folder named before it."""
    folder = ""
    for path, remark in re.findall(r"`([^`]+)`(?: \((\w+)\))?", cell):
        if path.endswith("/") and path.startswith(FOLDERS):
            folder = path
            yield path, remark
        elif path.startswith(FOLDERS):
            yield path, remark
        else:
            yield (folder or base) + path.replace("d/", "delivery/", 1) if path.startswith("d/") else (folder or base) + path, remark


def exists(path: str) -> bool:
    """Return whether a path without `.py` names a module or a folder."""
    return (ROOT / path).is_dir() or (ROOT / f"{path}.py").is_file()


def test_every_hop_is_where_the_architecture_says() -> None:
    rows = table("The flow, and where each hop lives")
    assert len(rows) > 20
    assert [path for row in rows for path, _ in places(row[2]) if not exists(path)] == []


def test_every_step_of_the_walk_is_where_the_architecture_says() -> None:
    rows = table("The walk of one event")
    assert len(rows) > 10
    missing = [
        path
        for row in rows
        for path, _ in places(row[2], "services/")
        if not exists(path) and not exists(f"protos/src/hooktide/{Path(path).name}")
    ]
    assert missing == []


def test_the_walk_passes_each_room_once_on_its_way_out_and_once_on_its_way_back() -> None:
    rooms = [row[1].split(", ") for row in table("The walk of one event") if row[1] != "back to the emitter"]
    turn = rooms.index(["transport"]) + 1
    assert rooms[turn] == ["transport"]
    for way in (rooms[:turn], rooms[turn:]):
        for room in {room for step in way for room in step}:
            steps = [number for number, step in enumerate(way) if room in step]
            assert steps == list(range(steps[0], steps[-1] + 1)), f"{room} is left and entered again"
    out, back = ({room for step in way for room in step} for way in (rooms[:turn], rooms[turn:]))
    # The parent of several workers relays the log's bytes, and takes no other part in the way of an event.
    own = {path.parent.name for path in (ROOT / "services" / "delivery").glob("*/__init__.py")} - {"parent"}
    assert own - (out | back) == {"listings", "notices", "sinks"}
    assert out == own - {"ledger", "listings", "notices", "sinks"} | {"emitter", "ingest", "event log"}
    assert back == own - {"listings", "notices", "sinks"} | {"event log", "ingest"}


def test_what_the_architecture_calls_pure_is_checked_to_be_pure() -> None:
    pure = listed()
    said = [
        path.rstrip("/").replace("/", ".")
        for row in table("The flow, and where each hop lives")
        for path, remark in places(row[2])
        if remark == "pure"
    ]
    assert len(said) > 3
    assert [module for module in said if module not in pure] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_file_that_a_document_names_exists(document: str) -> None:
    text, files = (ROOT / document).read_text(encoding="utf-8"), project_files()
    named = {path for path in re.findall(r"`([\w./-]+\.(?:py|md|yml|toml|binpb|proto))`", text) if "*" not in path}
    assert len(named) > 3
    assert sorted(name for name in named if not any(f"/{path}".endswith(f"/{name}") for path in files)) == []


def test_the_glossary_names_the_phases_of_a_delivery() -> None:
    (row,) = re.findall(r"^\| phase \|.*$", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.MULTILINE)
    named, settled = re.fullmatch(r".*: (.*), (?:or )?released .*\*Settled\* means (.*):.*", row).groups()  # type: ignore[union-attr]  # it matches
    assert re.split(r", ", f"{named}, released") == [phase.name.lower().replace("_", " ") for phase in Phase]
    assert set(re.split(r", | or ", settled)) == {phase.name.lower() for phase in SETTLED}


@pytest.mark.parametrize("document", ["README.md", "protos/README.md", *DOCUMENTS])
def test_every_place_that_a_document_links_to_exists(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    linked = [target for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target]
    assert [target for target in linked if not (ROOT / document).parent.joinpath(target.partition("#")[0]).exists()] == []


def test_the_architecture_names_the_layers_that_are_checked() -> None:
    names = (
        "The rooms of delivery are layers",
        "The rooms of the registry are layers",
        "The rooms of the gateway are layers",
        "The modules of ingest are layers",
        "The event log's engines stand above its Protocols",
    )
    prose = " ".join(ARCHITECTURE.split("**The rooms of delivery** are layers", 1)[1].split("\n\n", 1)[0].split())
    texts = re.split(r"(?:The registry's|The gateway's|Ingest's|The event log's) layers are", prose)
    for text, name in zip(texts, names, strict=True):
        layers = [room for layer in contract(name)["layers"] for room in layer.split(" | ")]
        named = [room for room in re.findall(r"`(\w+)`", text) if room in layers]
        assert named == layers, name


def modules() -> list[Path]:
    """Return the modules by hand, without packages and migrations."""
    paths = [path for folder in ("services", "gateway", "protos/src/hooktide") for path in sorted((ROOT / folder).rglob("*.py"))]
    return [path for path in paths if path.name != "__init__.py" and "_pb2" not in path.name and "migrations" not in path.parts]


def test_a_module_s_docstring_begins_with_the_name_of_its_file() -> None:
    def letters(text: str) -> str:
        return re.sub(r"[^a-z0-9]", "", text.lower())

    firsts = {path: (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split(":")[0] for path in modules()}
    assert len(firsts) > 200
    assert [f"{path.relative_to(ROOT)}: {first}" for path, first in firsts.items() if letters(first) != letters(path.stem)] == []


def test_no_file_is_too_long_to_read() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in modules()}
    assert {path: length for path, length in lengths.items() if length > 400} == {}


def test_each_default_port_stands_in_one_place() -> None:
    ports = re.compile(r"\b(?:50051|50052|50053|905[123]|808[01])\b")
    named = {
        str(path.relative_to(ROOT)) for path in modules() if ports.search(re.sub(r'"""[\s\S]*?"""', "", path.read_text(encoding="utf-8")))
    }
    assert named == {"services/runtime/configuration/default_ports.py"}


def test_no_test_replaces_code_by_a_mock() -> None:
    imports = re.compile(r"^\s*(?:from|import) +(?:unittest\.)?mock\b|\bunittest\.mock\b", re.MULTILINE)
    files = [path for path in (ROOT / "tests").rglob("*.py") if path != Path(__file__)]
    assert [str(path.relative_to(ROOT)) for path in files if imports.search(path.read_text(encoding="utf-8"))] == []


def exceptions_without_a_reason(text: str) -> list[str]:
    """Return the comments of a module that except a line from a rule of ruff or mypy and do not say why."""
    comments = re.findall(r"# (?:ruff: )?noqa\b.*|# (?:type): ignore.*", text)
    return [each for each in comments if not re.search(r"noqa: [A-Z0-9, ]+ - \S|type: ignore\[[a-z, -]+\] +# \S", each)]


def test_each_exception_to_a_rule_says_why() -> None:
    paths = [ROOT / name for name in project_files() if name.endswith(".py") and "_pb2" not in name]
    found = {str(path.relative_to(ROOT)): exceptions_without_a_reason(path.read_text(encoding="utf-8")) for path in paths}
    assert len(found) > 700
    assert {name: each for name, each in found.items() if each} == {}


def test_an_exception_without_a_reason_is_found() -> None:
    bare = ["# " + "noqa: S101", "# " + "noqa", "# type: " + "ignore[arg-type]", "# type: " + "ignore"]
    assert [exceptions_without_a_reason(f"pass  {comment}\n") for comment in bare] == [[comment] for comment in bare]
    assert exceptions_without_a_reason("pass  # " + "noqa: S101 - a reason\npass  # type: " + "ignore[arg-type]  # a reason\n") == []


def test_the_folders_of_tests_are_those_that_contributing_describes() -> None:
    section = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("## Where tests lie\n", 1)[1].split("\n## ", 1)[0]
    described = set(re.findall(r"^\| `tests/(\w+)` \|", section, re.MULTILINE))
    folders = {path.parent.name for path in (ROOT / "tests").glob("*/__init__.py")}
    rooms = {path.parent.name for path in (ROOT / "services").glob("*/__init__.py")} | {"gateway"}
    assert len(described) > 8
    assert described <= folders
    assert folders - rooms - described == {"emitter", "tls"}


# What tests these modules, where no file has their name.
TESTED_ELSEWHERE = {
    "services/cli/commands/repair": "tests/faults/test_stores",
    "services/cli/commands/subscriptions": "tests/cli/commands/test_emit",
    "services/cli/commands/up": "tests/cli/supervise/test_supervisor",
    "services/cli/composition": "tests/cli/test_app",
    "services/cli/errors": "tests/cli/test_app",
    "services/cli/json_text": "tests/badinput/test_cli",
    "services/cli/service_client": "tests/faults/test_stores",
    "services/runtime/child_process": "tests/cli/supervise/test_supervisor",
    "services/cli/supervise/up_screen": "tests/cli/supervise/test_supervisor",
    "services/cli/tls": "tests/tls/test_system",
    "services/runtime/configuration/common_settings": "tests/runtime/configuration/test_settings",
    "services/runtime/configuration/default_ports": "tests/repository/test_containers",
    "services/runtime/failpoints": "tests/faults/test_crash_points",
    "services/runtime/rpc/health_server": "tests/runtime/rpc/test_channel_and_server",
    "services/runtime/rpc/renewed_channel": "tests/tls/test_grpc",
    "services/runtime/rpc/requested_scope": "tests/runtime/test_consumer_scope",
    "services/runtime/tls": "tests/tls/test_grpc",
}


@pytest.mark.parametrize("room", ["cli", "runtime"])
def test_the_test_of_a_module_is_found_by_its_name(room: str) -> None:
    names = [path.relative_to(ROOT).with_suffix("").as_posix() for path in modules() if path.is_relative_to(ROOT / "services" / room)]
    assert len(names) > 20

    def test_of(name: str) -> str:
        folder, _, stem = name.removeprefix("services/").rpartition("/")
        return TESTED_ELSEWHERE.get(name, f"tests/{folder}/test_{stem}")

    assert [f"{name}: no {test_of(name)}.py" for name in names if not exists(test_of(name))] == []
    assert [name for name in TESTED_ELSEWHERE if not exists(name)] == []
