import importlib
import inspect

from tests.faults.catalogue import CATALOGUE, lines

REQUIRED = {*range(1, 11), 16, 17, *range(19, 52), 56, 57, *range(59, 66)}


def test_every_row_has_its_tests_and_each_of_them_exists() -> None:
    assert set(CATALOGUE) >= REQUIRED
    for number, row in CATALOGUE.items():
        assert row.tests, number
        for test in row.tests:
            module, _, name = test.partition("::")
            assert name.startswith("test_"), test
            assert inspect.isfunction(getattr(importlib.import_module(f"tests.{module}"), name, None)), test


def test_the_catalogue_is_printed_by_its_rows() -> None:
    assert [line.split()[0] for line in lines() if not line.startswith("       ")] == [str(number) for number in CATALOGUE]
