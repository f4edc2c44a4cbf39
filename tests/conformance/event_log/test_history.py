"""History and maintenance: what an event log promises to the service that owns it."""

import asyncio

import pytest

from services.eventlog.errors import LogFullError, LogUnavailableError
from services.eventlog.history import EventQuery
from services.eventlog.protocol import EventHistory
from services.eventlog.record import Lag, Record, ShardPosition
from services.runtime.consumer_scope import EVERYONE, OwnConsumer
from services.runtime.ids import new_id
from tests.conformance.event_log.conftest import OwnedLog
from tests.support.event_logs import LARGE, RETENTION_S, TIMEOUT_S, Reading, appended, everything, new_event, new_events, released

MIB = 1024 * 1024
ALL = EventQuery(before=None, limit=10, scope=EVERYONE, type="", source="", start_ms=None, end_ms=None)


async def pages(log: EventHistory, query: EventQuery) -> list[list[Record]]:
    """Return all pages of a query."""
    found = []
    while True:
        page = await log.newest(query)
        found.append(page.records)
        if page.next_before is None:
            return found
        query = query._replace(before=page.next_before)


async def listed(log: EventHistory, query: EventQuery) -> list[str]:
    """Return the ids of all events that match a query."""
    return [record.event_id for page in await pages(log, query) for record in page]


async def test_an_event_is_found_by_its_id(owned: OwnedLog) -> None:
    receipts = await appended(owned.log, new_events(range(50)))
    for receipt in receipts[::7]:
        record = await owned.log.locate(EVERYONE, receipt.event_id)
        assert record is not None
        assert (record.event_id, record.partition, record.position) == (receipt.event_id, receipt.partition, receipt.position)
    assert await owned.log.locate(EVERYONE, "evt_" + "0" * 32) is None
    assert await owned.log.locate(EVERYONE, "evt_" + "f" * 32) is None


async def test_a_scope_sees_the_events_for_all_and_those_for_its_own_consumer(owned: OwnedLog) -> None:
    own, other = OwnConsumer(new_id("con")), OwnConsumer(new_id("con"))
    audiences = ("", own.consumer_id, other.consumer_id)
    receipts = await appended(owned.log, [new_event(number)._replace(audience=audience) for number, audience in enumerate(audiences)])
    for scope, expected in ((EVERYONE, audiences), (own, audiences[:2]), (other, audiences[::2])):
        located = [await owned.log.locate(scope, receipt.event_id) for receipt in receipts]
        assert [record.audience for record in located if record is not None] == list(expected)
        page = await owned.log.newest(ALL._replace(scope=scope))
        assert [record.audience for record in reversed(page.records)] == list(expected)


async def test_a_trimmed_event_is_found_no_more(owned: OwnedLog) -> None:
    (receipt,) = await appended(owned.log, [new_event(1)])
    await owned.log.release(released(receipt.position))
    await owned.log.trim(before_ms=1 << 50)
    assert await owned.log.locate(EVERYONE, receipt.event_id) is None
    assert await listed(owned.log, ALL) == []


async def test_the_history_holds_every_event_once_the_newest_first(owned: OwnedLog) -> None:
    receipts = await appended(owned.log, new_events(range(25)))
    found = await pages(owned.log, ALL)
    assert max(len(page) for page in found) == 10
    assert [record.event_id for page in found for record in page] == [receipt.event_id for receipt in reversed(receipts)]


async def test_events_that_come_meanwhile_do_not_shift_the_pages(owned: OwnedLog) -> None:
    receipts = await appended(owned.log, new_events(range(15)))
    first = await owned.log.newest(ALL)
    await appended(owned.log, new_events(range(15, 30)))
    second = await owned.log.newest(ALL._replace(before=first.next_before))
    assert [record.event_id for record in first.records + second.records] == [receipt.event_id for receipt in reversed(receipts)]


async def test_a_query_holds_what_matches_all_of_its_filters(owned: OwnedLog) -> None:
    first_ms, mine, other = int(owned.clock.time_s * 1000), new_id("con"), new_id("con")
    early, late = [], []
    for number, (kind, source, audience) in enumerate([("a", "/x", ""), ("b", "/x", mine), ("a", "/y", other), ("a", "/x", mine)]):
        early += await appended(owned.log, [new_event(number)._replace(type=kind, source=source, audience=audience)])
    owned.clock.time_s += 60
    late += await appended(owned.log, [new_event(9)._replace(type="a", source="/x")])
    for query, expected in (
        (ALL._replace(type="a"), [late[0], early[3], early[2], early[0]]),
        (ALL._replace(type="a", source="/x"), [late[0], early[3], early[0]]),
        (ALL._replace(scope=OwnConsumer(mine)), [late[0], early[3], early[1], early[0]]),
        (ALL._replace(start_ms=first_ms + 1), late),
        (ALL._replace(end_ms=first_ms + 60_000, source="/y"), [early[2]]),
        (ALL._replace(start_ms=first_ms, end_ms=first_ms), []),
    ):
        assert await listed(owned.log, query) == [receipt.event_id for receipt in expected]


async def test_a_page_is_bounded_in_bytes(owned: OwnedLog) -> None:
    receipts = await appended(owned.log, new_events(range(7), size_bytes=MIB))
    found = await pages(owned.log, ALL)
    assert max(len(page) for page in found) == 3
    assert [record.event_id for page in found for record in page] == [receipt.event_id for receipt in reversed(receipts)]


async def test_a_bounded_fetch_stops_and_says_so(owned: OwnedLog) -> None:
    receipts = await appended(owned.log, new_events(range(5), size_bytes=MIB))
    places = [ShardPosition(0, receipt.position) for receipt in receipts]
    records, is_complete = await owned.log.fetch_bounded(places)
    assert ([record.position for record in records], is_complete) == ([place.position for place in places[:3]], False)
    records, is_complete = await owned.log.fetch_bounded(places[3:])
    assert ([record.position for record in records], is_complete) == ([place.position for place in places[3:]], True)


async def test_lag_goes_by_the_latest_report_and_before_the_first_by_the_releases(owned: OwnedLog) -> None:
    log, first_ms = owned.log, int(owned.clock.time_s * 1000)
    receipts = await appended(log, new_events(range(4), partition=1))
    assert await log.lag() == Lag(4, first_ms)
    await log.release(released(receipts[2].position))
    assert await log.lag() == Lag(1, first_ms)
    await log.report_routed([ShardPosition(0, receipts[0].position, receipts[0].event_id)])
    assert await log.lag() == Lag(3, first_ms)


async def test_a_full_log_refuses_until_there_is_room(owned: OwnedLog) -> None:
    """After a trim, or with a larger limit, the log takes events again and says so."""
    log = owned.log
    await log.check_room()
    receipts = await appended(log, new_events(range(200), size_bytes=1000))
    assert log.why_refusing is None
    full_bytes = await log.used_bytes()
    assert full_bytes > 200_000
    log.change_limits(bytes_max=full_bytes, retention_s=RETENTION_S)
    with pytest.raises(LogFullError):
        await log.append([new_event(200)])
    await log.check_room()
    assert log.why_refusing
    await log.release(released(receipts[-1].position))
    assert await log.trim(before_ms=1 << 50) == 200
    await log.check_room()
    assert log.why_refusing is None
    await appended(log, [new_event(200)])
    log.change_limits(bytes_max=1, retention_s=RETENTION_S)
    with pytest.raises(LogFullError):
        await log.append([new_event(201)])
    log.change_limits(bytes_max=LARGE, retention_s=RETENTION_S)
    await appended(log, [new_event(201)])
    assert log.why_refusing is None


async def test_another_retention_counts_from_the_next_release_on(owned: OwnedLog) -> None:
    (receipt,) = await appended(owned.log, [new_event(1, partition=0)])
    owned.clock.time_s += 60
    await appended(owned.log, [new_event(2, partition=0)])
    assert await owned.log.release(released(0)) == everything()
    owned.log.change_limits(bytes_max=LARGE, retention_s=30)
    assert await owned.log.release(released(0)) == everything(receipt.position)


async def test_another_retention_ends_each_following_and_the_next_one_tells_it(owned: OwnedLog) -> None:
    async with owned.log.follow(everything()) as following, asyncio.timeout(TIMEOUT_S):
        assert following.retention_s == RETENTION_S
        owned.log.change_limits(bytes_max=LARGE // 2, retention_s=RETENTION_S)
        await appended(owned.log, [new_event(1)])
        assert len(await Reading(following).batch()) == 1
        owned.log.change_limits(bytes_max=LARGE, retention_s=30)
        with pytest.raises(LogUnavailableError):
            await Reading(following).batch()
    async with owned.log.follow(everything()) as following:
        assert following.retention_s == 30


async def test_the_owner_ends_every_following(owned: OwnedLog) -> None:
    async with owned.log.follow(everything()) as following, asyncio.timeout(TIMEOUT_S):
        owned.log.end_following()
        with pytest.raises(LogUnavailableError):
            await Reading(following).batch()
