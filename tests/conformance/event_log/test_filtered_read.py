"""Filtered read: what an event log promises to a reader of a range."""

import random
from dataclasses import dataclass, field

import pytest

from services.eventlog.filtered_read import BYTES_MAX, RECORDS_MAX, ReadPage, ReadQuery
from services.eventlog.protocol import EventReader
from services.eventlog.record import Appended, NewEvent, Record, ShardPosition
from tests.conformance.event_log.conftest import Engine
from tests.support.event_logs import appended, new_event, new_events, released

MIB = 1024 * 1024
BEGINNING = (ShardPosition(0, 0),)
TYPES = ["order", "order.created", "order.eu.created", "orders", "order.", "ü.x", "hooktide", "hooktide.a.b", "hooktide.c", "zz", "a/b"]
PATTERNS = [
    "*",
    "order",
    "order.*",
    "order.eu.*",
    "ü.*",
    "hooktide.*",
    "hooktide.a.*",
    "hooktide.c",
    "orders",
    "no.such",
    "hooktide",
    "a.*",
]
SOURCES = ["/shop", "/bank", "/shop/"]
AUDIENCES = ["", "con_1", "con_2"]


def matches(event: NewEvent, query: ReadQuery) -> bool:
    """Return whether a reader wants an event, by the words of the contract."""

    def names(pattern: str) -> bool:
        if pattern == "*":
            return not event.type.startswith("hooktide.")
        return event.type.startswith(pattern[:-1]) if pattern.endswith(".*") else event.type == pattern

    return (
        any(map(names, query.types or ["*"]))
        and query.source in {"", event.source}
        and (not query.audiences or event.audience in query.audiences)
    )


@dataclass
class Range:
    """A range that a test has read to its end."""

    records: list[Record] = field(default_factory=list)
    pages: list[ReadPage] = field(default_factory=list)


async def read_all(reader: EventReader, query: ReadQuery, end: int) -> Range:
    """Read page after page until one reaches `end`."""
    found, at = Range(), query.after[0].position
    while at < end:
        page = await reader.read(query._replace(after=[ShardPosition(0, at)]))
        (scanned,) = page.scanned_through
        assert at < scanned.position <= end
        assert all(at < record.position <= scanned.position for record in page.records)
        at = scanned.position
        found.records += page.records
        found.pages.append(page)
    return found


def ids(records: list[Record]) -> list[str]:
    return [record.event_id for record in records]


async def filled(engine: Engine, chance: random.Random, count: int) -> list[tuple[NewEvent, Appended]]:
    """Append events of all kinds."""
    events = [
        new_event(number)._replace(type=chance.choice(TYPES), source=chance.choice(SOURCES), audience=chance.choice(AUDIENCES))
        for number in range(count)
    ]
    return list(zip(events, await appended(engine.log, events), strict=True))


@pytest.mark.parametrize("seed", range(4))
async def test_the_pages_of_a_range_hold_each_matching_event_once_and_in_order(engine: Engine, seed: int) -> None:
    """Whatever the filter, the range and the bounds of a page are."""
    chance = random.Random(seed)
    log = await filled(engine, chance, 150)
    for _ in range(25):
        first, last = sorted(chance.choices(range(len(log)), k=2))
        after, through = log[first][1].position, log[last][1].position
        query = ReadQuery(
            [ShardPosition(0, after)],
            [ShardPosition(0, through)],
            chance.sample(PATTERNS, chance.randrange(4)),
            chance.choice(["", *SOURCES]),
            chance.sample(AUDIENCES, chance.randrange(3)),
            records_max=chance.choice([1, 2, 200]),
            bytes_max=chance.choice([1, 50, MIB]),
            examined_max=chance.choice([1, 7, 1000]),
        )
        found = await read_all(engine.reader, query, through)
        wanted = [receipt.event_id for event, receipt in log[first + 1 : last + 1] if matches(event, query)]
        assert ids(found.records) == wanted, query
        assert max((len(page.records) for page in found.pages), default=0) <= query.records_max


async def test_a_record_is_whole(engine: Engine) -> None:
    event = new_event(7)._replace(type="order.created", source="/bank", audience="con_1")
    (receipt,) = await appended(engine.log, [event])
    page = await engine.reader.read(ReadQuery(BEGINNING))
    (record,) = page.records
    assert (record.partition, record.position, record.event_id) == (receipt.partition, receipt.position, receipt.event_id)
    assert (record.type, record.source, record.audience, record.event) == ("order.created", "/bank", "con_1", event.event)
    assert record.accepted_ms == int(engine.clock.time_s * 1000)


async def test_a_range_without_an_end_reaches_the_head(engine: Engine) -> None:
    receipts = await appended(engine.log, new_events(range(3)))
    page = await engine.reader.read(ReadQuery(BEGINNING, types=["no.such"]))
    assert (page.records, page.scanned_through) == ([], [ShardPosition(0, receipts[-1].position)])


async def test_a_range_beyond_the_head_stays_open(engine: Engine) -> None:
    """Nothing is skipped that comes later."""
    receipts = await appended(engine.log, new_events(range(3)))
    head = receipts[-1].position
    page = await engine.reader.read(ReadQuery([ShardPosition(0, head - 1)], [ShardPosition(0, head + 10)]))
    assert (ids(page.records), page.scanned_through) == ([receipts[-1].event_id], [ShardPosition(0, head)])
    for after in (head, head + 5):
        page = await engine.reader.read(ReadQuery([ShardPosition(0, after)], [ShardPosition(0, head + 10)]))
        assert (page.records, page.scanned_through) == ([], [ShardPosition(0, after)])


async def test_an_empty_log_has_an_empty_page(engine: Engine) -> None:
    page = await engine.reader.read(ReadQuery(BEGINNING, [ShardPosition(0, 9)]))
    assert (page.records, page.scanned_through, page.first_available) == ([], [ShardPosition(0, 0)], [ShardPosition(0, 1)])


async def test_a_page_holds_at_most_200_records_and_2_mib_or_one_larger_record(engine: Engine) -> None:
    await appended(engine.log, new_events(range(RECORDS_MAX + 1)))
    large = await appended(engine.log, new_events(range(1000, 1003), size_bytes=MIB)) + await appended(
        engine.log, [new_event(2000, size_bytes=BYTES_MAX + 1)]
    )
    found = await read_all(engine.reader, ReadQuery(BEGINNING), large[-1].position)
    assert max(len(page.records) for page in found.pages) == RECORDS_MAX
    assert len(found.records) == RECORDS_MAX + 5
    sizes = [[len(record.event) for record in page.records] for page in found.pages]
    assert all(sum(each) <= BYTES_MAX or len(each) == 1 for each in sizes)
    assert max(map(sum, sizes)) > BYTES_MAX


async def test_a_page_tells_what_was_trimmed(engine: Engine) -> None:
    """Reading goes on after it."""
    receipts = await appended(engine.log, new_events(range(10)))
    before = await engine.reader.read(ReadQuery(BEGINNING))
    assert before.first_available == [ShardPosition(0, receipts[0].position)]
    await engine.reader.release(released(receipts[5].position))
    await engine.trim(exactly=6)
    page = await engine.reader.read(ReadQuery(BEGINNING))
    assert ids(page.records) == [receipt.event_id for receipt in receipts[6:]]
    assert page.first_available == [ShardPosition(0, receipts[6].position)]
    assert page.log_id == before.log_id != ""
    page = await engine.reader.read(ReadQuery(BEGINNING, [ShardPosition(0, receipts[2].position)]))
    assert (page.records, page.scanned_through) == ([], [ShardPosition(0, receipts[2].position)])


async def test_a_log_without_records_knows_where_it_goes_on(engine: Engine) -> None:
    receipts = await appended(engine.log, new_events(range(3)))
    await engine.reader.release(released(receipts[-1].position))
    await engine.trim(exactly=3)
    page = await engine.reader.read(ReadQuery(BEGINNING))
    assert (page.records, page.scanned_through) == ([], [ShardPosition(0, receipts[-1].position)])
    assert page.first_available == [ShardPosition(0, receipts[-1].position + 1)]
