import ast

import pytest

from tests.badinput.table import ROWS
from tests.support.system.processes import ROOT


def names_in(path: str) -> set[str]:
    """Return the names of a file's tests."""
    tree = ast.parse((ROOT / path).read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


@pytest.mark.parametrize("row", ROWS)
def test_every_row_names_tests_that_exist(row: str) -> None:
    assert ROWS[row]
    for named in ROWS[row]:
        path, _, name = named.partition("::")
        assert name in names_in(path), named
