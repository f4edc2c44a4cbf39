"""Ledger, over every engine: what a trim drops, and what it keeps."""

from services.delivery.ledger.protocol import Flush, Ledger
from services.delivery.model import Attempt
from services.delivery.transport.protocol import Outcome
from services.runtime.consumer_scope import EVERYONE
from tests.delivery.ledger.deliveries import ALL, NOW_MS, delivery, finished, listed, unfinished

NO_LIMIT = 1 << 50
LARGE = [Attempt(0, 0, Outcome.STATUS, 500, "", "x" * 1000)]


async def test_days_past_their_retention_go(ledger: Ledger) -> None:
    """A day goes as a whole, by when its deliveries ended; without a time to keep, everything stays."""
    await ledger.flush(Flush(finished=[finished(number, day=number - 5) for number in range(6)]))
    assert (await ledger.trim(before_ms=None, bytes_max=NO_LIMIT)).deliveries == 0
    assert (await ledger.trim(before_ms=NOW_MS - 1, bytes_max=NO_LIMIT)).deliveries == 4
    assert [row.position for row in await listed(ledger)] == [5, 4]
    assert await ledger.find(EVERYONE, delivery(4).id) == finished(4, day=-1)
    assert await ledger.find(EVERYONE, delivery(3).id) is None


async def test_a_delivery_of_a_day_that_has_gone_is_still_written(ledger: Ledger) -> None:
    """A flush may be so late after the disk was full for days, or after the clock went back. The next trim drops the delivery."""
    await ledger.flush(Flush(finished=[finished(1, day=-5)]))
    await ledger.trim(before_ms=NOW_MS, bytes_max=NO_LIMIT)
    await ledger.flush(Flush(finished=[finished(2, day=-5)]))
    assert [row.position for row in await listed(ledger)] == [2]
    assert await ledger.find(EVERYONE, delivery(2).id) is not None
    assert (await ledger.trim(before_ms=NOW_MS, bytes_max=NO_LIMIT)).deliveries == 1
    assert await listed(ledger) == []


async def test_beyond_its_size_the_oldest_finished_deliveries_go(ledger: Ledger) -> None:
    """Unfinished deliveries are never dropped."""
    ended = [finished(number, day=number // 3000, attempts=LARGE) for number in range(6000)]
    opened = [unfinished(number) for number in range(6000, 6100)]
    for start in range(0, 6000, 1000):
        await ledger.flush(Flush(opened if not start else [], finished=ended[start : start + 1000]))
    half = (await ledger.trim(before_ms=None, bytes_max=NO_LIMIT)).used_bytes // 2
    trimmed = await ledger.trim(before_ms=None, bytes_max=half)
    assert trimmed.used_bytes <= half
    left = [row.position for row in await listed(ledger)]
    assert 1000 < len(left) < 4000
    assert left == list(range(6099, 6099 - len(left), -1))
    assert trimmed.deliveries == 6100 - len(left)
    await ledger.trim(before_ms=None, bytes_max=0)
    assert await listed(ledger, ALL) == opened[::-1]
    await ledger.flush(Flush(finished=[finished(1)]))
