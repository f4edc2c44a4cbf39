"""Listing reader: callers take turns, and the queue is bounded."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.runtime.database import connect
from services.runtime.errors import Failure, Reason
from services.runtime.listing_reader import WAITING_EACH_MAX, Budget, ListingReader

TIMEOUT_S = 60


@pytest.fixture
async def reader(tmp_path: Path) -> AsyncIterator[ListingReader]:
    connect(tmp_path / "a.db").close()
    opened = ListingReader(tmp_path / "a.db")
    yield opened
    await opened.close()


async def test_those_who_ask_take_turns(reader: ListingReader) -> None:
    """A caller with many queries holds the others up by one query each time."""
    go_on, order = threading.Event(), list[str]()

    def query(_connection: sqlite3.Connection, name: str) -> None:
        go_on.wait(TIMEOUT_S)
        order.append(name)

    async with asyncio.timeout(TIMEOUT_S):
        waiting = [asyncio.ensure_future(reader.read("much", query, "much")) for _ in range(10)]
        waiting += [asyncio.ensure_future(reader.read(name, query, name)) for name in ("one", "another") for _ in range(2)]
        await asyncio.sleep(0)
        go_on.set()
        await asyncio.gather(*waiting)
    assert order == ["much", *["much", "one", "another"] * 2, *["much"] * 7]


async def test_what_waits_of_one_is_bounded_and_others_are_served(reader: ListingReader) -> None:
    go_on = threading.Event()

    def query(_connection: sqlite3.Connection) -> bool:
        return go_on.wait(TIMEOUT_S)

    async with asyncio.timeout(TIMEOUT_S):
        waiting = [asyncio.ensure_future(reader.read("much", query)) for _ in range(WAITING_EACH_MAX + 5)]
        other = asyncio.ensure_future(reader.read("other", query))
        await asyncio.sleep(0)
        go_on.set()
        answers = await asyncio.gather(*waiting, return_exceptions=True)
        assert await other
    refused = [answer for answer in answers if isinstance(answer, Failure)]
    assert [failure.reason for failure in refused] == [Reason.OVERLOADED] * 4
    assert refused[0].retry_after_s is not None
    assert await reader.read("much", query)


async def test_who_no_longer_waits_is_left_out_and_errors_reach_who_asked(reader: ListingReader) -> None:
    go_on, ran = threading.Event(), list[int]()

    def query(connection: sqlite3.Connection, number: int) -> None:
        go_on.wait(TIMEOUT_S)
        ran.append(number)
        if number == 2:
            connection.execute("SELECT * FROM none")

    async with asyncio.timeout(TIMEOUT_S):
        waiting = [asyncio.ensure_future(reader.read("one", query, number)) for number in range(4)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        waiting[1].cancel()
        go_on.set()
        with pytest.raises(sqlite3.OperationalError):
            await waiting[2]
        await waiting[3]
    assert ran == [0, 2, 3]


async def test_nothing_is_written_by_a_listing(reader: ListingReader) -> None:
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        await reader.read("one", lambda connection: connection.execute("CREATE TABLE t (a)"))


def test_a_budget_is_spent_once_its_time_is_over() -> None:
    now = 0.0
    budget = Budget(5.0, lambda: now)
    assert not budget.is_spent
    now = 5.0
    assert budget.is_spent
