"""Readiness: which changes of a service's readiness are reported."""

import pytest

from services.cli.readiness import READY, ReadinessWatch

WHY = "not ready: the ledger cannot be written"


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ([READY] * 5, []),
        ([WHY, READY] * 5, []),
        ([WHY] * 6, [WHY]),
        ([WHY] * 3 + [READY] * 3, [WHY, READY]),
        ([WHY] * 3 + [READY] * 2 + [WHY] * 5, [WHY]),
        ([WHY] * 3 + ["degraded: x"] * 3 + [READY] * 4, [WHY, "degraded: x", READY]),
    ],
)
def test_what_lasts_is_told_once(said: list[str], told: list[str]) -> None:
    watch = ReadinessWatch()
    heard = [watch.looked(each) for each in said]
    assert [each for each in heard if each is not None] == told
