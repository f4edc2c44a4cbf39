import json
from dataclasses import replace

import pytest

from services.delivery.model import Attempt, SubscriptionStatus
from services.delivery.notices.notice import notice_of
from services.delivery.notices.outbox import Outbox
from services.delivery.request.request_settings import Disabled, RequestSettings, Subscription
from services.delivery.subscriptions.disable_reports import DisableReports
from services.delivery.transport.protocol import Outcome
from services.delivery.worker.transition_reports import TransitionReports
from services.runtime.clock import SystemClock, unix_ms

DAY_MS = 86_400_000
SUBSCRIPTION = Subscription("sub_1", "con_1", "", (), "", SubscriptionStatus.OFF, 5, RequestSettings(sink_revision=3))


class Reported(DisableReports):
    """The reports, without a registry."""

    def __init__(self) -> None:
        self.reported: list[tuple[str, int, str]] = []

    def report(self, subscription_id: str, sink_revision: int, reason: str) -> None:
        """Take a report."""
        self.reported.append((subscription_id, sink_revision, reason))


@pytest.fixture
def outbox() -> Outbox:
    return Outbox(lambda: None)


@pytest.fixture
def reports(outbox: Outbox) -> TransitionReports:
    return TransitionReports(outbox, Reported(), SystemClock())


@pytest.mark.parametrize(("days", "is_news", "told"), [(0, True, 1), (3, True, 1), (0, False, 1), (1, False, 0)])
async def test_after_a_start_only_a_recent_disabling_is_told_again(
    outbox: Outbox, reports: TransitionReports, days: int, *, is_news: bool, told: int
) -> None:
    """The log knows the recent one by its id, so the consumer gets it once."""
    disabled = Disabled(unix_ms(SystemClock()) - days * DAY_MS, "The sink answered 410 Gone.")
    reports.disabled(replace(SUBSCRIPTION, disabled=disabled), is_news=is_news)
    assert len(outbox.take()) == told


async def test_a_disabling_is_one_notice_whatever_changes_later(outbox: Outbox, reports: TransitionReports) -> None:
    for revision in (5, 6):
        reports.disabled(replace(SUBSCRIPTION, revision=revision, disabled=Disabled(revision, "gone")), is_news=True)
    assert len({row.id for row in outbox.take()}) == 1
    reports.disabled(SUBSCRIPTION, is_news=True)
    assert not outbox


async def test_the_reason_tells_since_when_and_why_a_sink_failed_for_too_long(outbox: Outbox) -> None:
    reported = Reported()
    last = Attempt(0, 0, Outcome.STATUS, 503, "the server answered 503", "")
    TransitionReports(outbox, reported, SystemClock()).failed_too_long(SUBSCRIPTION, 1_900_000_000_123, last)
    (found,) = reported.reported
    assert found[:2] == ("sub_1", 3)
    assert found[2].startswith(
        "Every attempt has failed since 2030-03-17T17:46:40.123Z; the last one: the sink answered with the status 503."
    )


async def test_waiting_events_that_expire_are_told_once_for_each_place(outbox: Outbox, reports: TransitionReports) -> None:
    for at in ("0:17", "0:17", "0:18"):
        reports.raise_expiring(SUBSCRIPTION, at, waiting_since_ms=1_900_000_000_000, expires_ms=1_900_604_800_000)
    rows = outbox.take()
    assert len({row.id for row in rows}) == 2
    data = json.loads(notice_of(rows[0]).data)
    assert (data["state"], data["since"], data["expires_at"]) == ("expiring", "2030-03-17T17:46:40.000Z", "2030-03-24T17:46:40.000Z")
