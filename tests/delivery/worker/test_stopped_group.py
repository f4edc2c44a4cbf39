"""Stopped group: what is logged, and what readiness says."""

from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from services.delivery.worker.stopped_group import ANOTHER_LOG, OLDER_COPY, StoppedGroup


def test_a_stop_is_logged_once_with_its_reason_and_advice() -> None:
    with capture_logs() as lines:
        StoppedGroup().stop(ANOTHER_LOG)
    [line] = lines
    assert (line["event"], line["log_level"], line["why"]) == ("routing.stopped", "error", ANOTHER_LOG)
    assert "hooktide repair" in line["advice"]


def test_readiness_and_the_metric_tell_of_a_stop_until_routing_goes_on() -> None:
    before = REGISTRY.get_sample_value("hooktide_stopped_groups") or 0.0
    group = StoppedGroup()
    assert (bool(group), group.why()) == (False, None)
    group.stop(OLDER_COPY)
    assert (bool(group), group.why()) == (True, f"routing is stopped: {OLDER_COPY}")
    assert REGISTRY.get_sample_value("hooktide_stopped_groups") == before + 1
    group.resume()
    assert (bool(group), group.why()) == (False, None)
    assert REGISTRY.get_sample_value("hooktide_stopped_groups") == before
