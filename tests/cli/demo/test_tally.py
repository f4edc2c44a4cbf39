from services.cli.demo.shop_events import ACCOUNTING, WAREHOUSE, ShopEvent
from services.cli.demo.tally import Tally


def test_the_tally_counts_what_is_due_whatever_comes_first() -> None:
    tally = Tally()
    assert tally.arrive(ACCOUNTING, "evt_1", verified=True) == 1
    tally.emit(ShopEvent("order.paid", "s", {}), "evt_1")
    assert tally.last_line() == "demo: 1 emitted, 2 expected, 1 delivered, 1 verified, 1 lost"
    assert not tally.is_perfect
    assert tally.arrive(WAREHOUSE, "evt_1", verified=True) == 1
    assert tally.arrive(WAREHOUSE, "evt_1", verified=True) == 2
    assert (tally.repeated, tally.misdirected, tally.is_perfect) == (1, 0, True)


def test_one_bad_signature_or_one_wrong_receiver_spoils_the_tally() -> None:
    tally = Tally()
    tally.emit(ShopEvent("order.created", "s", {}), "evt_1")
    tally.arrive(WAREHOUSE, "evt_1", verified=True)
    tally.arrive(WAREHOUSE, "evt_1", verified=False)
    assert (tally.delivered, tally.verified, tally.is_perfect) == (1, 0, False)
    tally = Tally()
    tally.emit(ShopEvent("invoice.issued", "s", {}), "evt_1")
    tally.arrive(ACCOUNTING, "evt_1", verified=True)
    tally.arrive(WAREHOUSE, "evt_1", verified=True)
    assert (tally.misdirected, tally.is_perfect) == (1, False)
