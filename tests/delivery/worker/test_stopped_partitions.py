"""Stopped partitions: what is logged of them, and what readiness says."""

from structlog.testing import capture_logs

from services.delivery.ledger.protocol import Cursor
from services.delivery.worker.stopped_partitions import ANOTHER_LOG, OLDER_COPY, StoppedPartitions, progress_at
from services.eventlog.record import PARTITIONS


def stopped(partitions: range, why: str) -> StoppedPartitions:
    """Return the partitions, stopped for one reason."""
    them = StoppedPartitions()
    for partition in partitions:
        them.add(progress_at(Cursor(partition, 7, "evt_x", "sub_y")), why)
    return them


def test_each_reason_is_logged_once_however_many_partitions_it_stops() -> None:
    them = stopped(range(3), OLDER_COPY)
    them.add(progress_at(Cursor(9, 1, "", "")), ANOTHER_LOG)
    with capture_logs() as lines:
        them.log()
        them.log()
    assert [(line["event"], line["count"], line["partitions"]) for line in lines] == [
        ("partitions.stopped", 3, "0,1,2"),
        ("partitions.stopped", 1, "9"),
    ]
    assert [line["why"] for line in lines] == [OLDER_COPY, ANOTHER_LOG]


def test_if_all_partitions_are_stopped_the_line_says_so() -> None:
    with capture_logs() as lines:
        stopped(range(PARTITIONS), ANOTHER_LOG).log()
    assert [line["partitions"] for line in lines] == ["all"]


def test_readiness_names_the_number_and_the_reason_until_all_are_followed_again() -> None:
    them = stopped(range(2), OLDER_COPY)
    assert them.why() == f"2 of {PARTITIONS} partitions are stopped: {OLDER_COPY}"
    assert [(each.partition, each.position, each.event_id, each.through) for each in them.progress] == [
        (0, 7, "evt_x", "sub_y"),
        (1, 7, "evt_x", "sub_y"),
    ]
    them.remove(0)
    assert bool(them)
    them.remove(1)
    assert not them
    assert them.why() is None
    with capture_logs() as lines:
        them.log()
    assert lines == []
