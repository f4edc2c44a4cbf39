"""Ledger, over every engine: deliveries of different keys never share an id, and none is left out."""

from services.delivery.ledger.protocol import DeliveryKey, Flush, Ledger
from services.delivery.ledger.rows import DoneRow, OpenRow
from services.delivery.model import delivery_id
from tests.delivery.ledger.deliveries import delivery, finished, listed, unfinished

ID = unfinished(1).id
"""The id of the first delivery, which others get too."""


def key_of(row: OpenRow | DoneRow) -> DeliveryKey:
    """Return what makes a row's delivery the same one."""
    return DeliveryKey(row.event_id, row.subscription_id, row.job_id)


def nth_id(row: OpenRow | DoneRow, nth: int) -> bytes:
    """Return an id of a row's key."""
    return delivery_id(*key_of(row), nth)


async def test_an_unfinished_delivery_whose_id_is_taken_gets_another(ledger: Ledger) -> None:
    """The flush tells the new id. The delivery that stands keeps its own; the same flush again finds both and changes nothing."""
    first, second = unfinished(1), unfinished(2)._replace(id=ID)
    assert await ledger.flush(Flush([first])) == {}
    for _ in range(2):
        assert await ledger.flush(Flush([second])) == {key_of(second): nth_id(second, 1)}
        assert await listed(ledger) == [second._replace(id=nth_id(second, 1)), first]


async def test_deliveries_of_one_flush_that_share_an_id_are_all_written(ledger: Ledger) -> None:
    """Of one event and subscription, too, if they belong to different jobs."""
    rows = [unfinished(1), unfinished(1, job_id="rpl_x"), unfinished(1, job_id="rpl_y")]
    renamed = await ledger.flush(Flush([row._replace(id=ID) for row in rows]))
    assert renamed == {key_of(row): nth_id(row, 1) for row in rows[1:]}
    expected = {(row.job_id, nth_id(row, min(number, 1))) for number, row in enumerate(rows)}
    assert {(row.job_id, row.id) for row in await listed(ledger)} == expected


async def test_the_smallest_id_that_is_free_is_taken(ledger: Ledger) -> None:
    taken = [unfinished(1), unfinished(3)._replace(id=nth_id(unfinished(2), 1)), unfinished(4)._replace(id=nth_id(unfinished(2), 2))]
    await ledger.flush(Flush(taken))
    second = unfinished(2)._replace(id=ID)
    assert await ledger.flush(Flush([second])) == {key_of(second): nth_id(second, 3)}
    assert len(await listed(ledger)) == 4


async def test_a_finished_delivery_whose_id_is_taken_gets_another(ledger: Ledger) -> None:
    """Its unfinished row goes under the id that it had."""
    await ledger.flush(Flush(finished=[finished(1)]))
    await ledger.flush(Flush([unfinished(2)._replace(id=ID)]))
    ended = finished(2)._replace(id=ID)
    assert await ledger.flush(Flush(closed=[ID], finished=[ended])) == {key_of(ended): nth_id(ended, 1)}
    assert await listed(ledger) == [ended._replace(id=nth_id(ended, 1)), finished(1)]


async def test_deliveries_that_are_written_again_keep_their_ids(ledger: Ledger) -> None:
    """Routing again after a crash gives the same ids to the same deliveries, and changes none of them."""
    rows = [unfinished(number) for number in range(1200)]
    await ledger.flush(Flush(rows[:900], finished=[finished(2000)]))
    assert await ledger.flush(Flush(rows, finished=[finished(2000), finished(2001)])) == {}
    assert len(await listed(ledger)) == 1202
    assert delivery(7).id in {row.id for row in await listed(ledger)}
