"""Pure modules: `lint-imports` keeps them from the network and from stores; these tests keep its list complete."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CLAIM = re.compile(r"\bLaw(?: 1)?: pure\b|\. Pure\.")


def listed() -> list[str]:
    """Return the modules and packages that the contract of pure modules names."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    (modules,) = [contract["source_modules"] for contract in contracts if contract["name"].startswith("Decisions are pure")]
    return list(modules)


def docstrings() -> dict[str, str]:
    """Return the docstring of each module, by the module's name."""
    paths = [path for folder in ("services", "gateway") for path in (ROOT / folder).rglob("*.py") if "migrations" not in path.parts]
    names = {path: ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in paths}
    return {name: ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "" for path, name in names.items()}


def test_every_module_that_says_that_it_is_pure_is_checked() -> None:
    pure, modules = listed(), docstrings()
    assert modules
    unchecked = [
        name
        for name, text in modules.items()
        if CLAIM.search(text) and not any(name == each or name.startswith(f"{each}.") for each in pure)
    ]
    assert not unchecked, f"add to the contract of pure modules in pyproject.toml: {unchecked}"


@pytest.mark.parametrize(
    "room",
    [
        "wire",
        "lane",
        "lane_table",
        "due_clock",
        "lifecycle",
        "retry_policy",
        "circuit_breaker",
        "sink_health",
        "token_bucket",
        "router",
        "validation",
    ],
)
def test_the_decisions_of_the_flow_are_checked(room: str) -> None:
    assert any(name.endswith(f".{room}") for name in listed())


def test_time_and_chance_are_arguments_of_pure_modules() -> None:
    """`secrets` is allowed: new keys and secrets are made beside the rules for them."""
    clocks = {"time", "random"}
    found = []
    for name in listed():
        folder = ROOT / name.replace(".", "/")
        for path in folder.rglob("*.py") if folder.is_dir() else [folder.with_suffix(".py")]:
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    imported = {each.name for each in node.names}
                elif isinstance(node, ast.ImportFrom):
                    imported = {node.module or ""}
                else:
                    continue
                found += [f"{path.relative_to(ROOT)}:{node.lineno}: {each}" for each in imported & clocks]
    assert not found


def test_the_claim_is_recognised() -> None:
    assert CLAIM.search("Law 1: pure. Time and chance are arguments.")
    assert CLAIM.search("Law: pure; no message shows a password.")
    assert CLAIM.search("Shop: the demo's events. Pure.")
    assert not CLAIM.search("Law 1: a pure function decides.")
