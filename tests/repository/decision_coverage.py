"""Decision coverage: the decisions of delivery, whose unit tests alone must take every branch; `make decisions` checks it.

The target runs their unit tests and fails if a branch of one of these modules is not taken. `make mutation` changes them one at a time.
"""

import sys
from pathlib import Path

import coverage
import pytest

ROOT = Path(__file__).parents[2]
DECISIONS = (
    "services/delivery/dispatch/circuit_breaker.py",
    "services/delivery/dispatch/concurrency_limit.py",
    "services/delivery/dispatch/due_clock.py",
    "services/delivery/dispatch/failing_period.py",
    "services/delivery/dispatch/failure_rate.py",
    "services/delivery/dispatch/fair_rounds.py",
    "services/delivery/dispatch/lane_record.py",
    "services/delivery/dispatch/lifecycle.py",
    "services/delivery/dispatch/rate_limit.py",
    "services/delivery/dispatch/retry_policy.py",
    "services/delivery/dispatch/sink_health.py",
    "services/delivery/dispatch/token_bucket.py",
    "services/delivery/dispatch/unproven_sinks.py",
    "services/delivery/ledger/ledger_map.py",
    "services/delivery/listings/rowless.py",
    "services/delivery/model.py",
    "services/delivery/request/sink_fingerprint.py",
    "services/delivery/sinks/verification_protocol.py",
    "services/delivery/subscriptions/router.py",
    "services/delivery/worker/backpressure.py",
    "services/eventlog/sqlite/event_ids.py",
)
_EXCLUDED = ("if TYPE_CHECKING:", r"^\s*\.\.\.$")


def tests_of(module: str) -> Path:
    """Return the file with the unit tests of a module, by its name."""
    path = ROOT / module.replace("services/", "tests/", 1)
    return path.with_name(f"test_{path.name}")


def main() -> int:
    """Run the tests under coverage and print the report; return the exit code."""
    measured = coverage.Coverage(data_file=None, branch=True, include=[str(ROOT / module) for module in DECISIONS], config_file=False)
    for pattern in _EXCLUDED:
        measured.exclude(pattern)
    with measured.collect():
        failed = pytest.main(["-q", "-m", "not slow", *(str(tests_of(module)) for module in DECISIONS)])
    covered = measured.report(show_missing=True, skip_covered=True, file=sys.stdout)
    return int(failed or covered < 100)


if __name__ == "__main__":
    sys.exit(main())
