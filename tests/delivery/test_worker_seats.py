from pathlib import Path

import pytest

from services.delivery.worker_seats import ledger_file, refuse_other_cut, settings_of_worker, slots_of_worker, worker_of_slot, worker_socket
from services.runtime.configuration.settings import WORKERS_MAX, DeliverySettings
from services.runtime.configuration.settings_reader import read_settings
from services.runtime.ids import SLOTS, slot_in_turn
from services.runtime.service_process import StartError, WorkerSeat


def settings(**variables: str) -> DeliverySettings:
    return read_settings(DeliverySettings, {f"HOOKTIDE_{name}": value for name, value in variables.items()})


@pytest.mark.parametrize("workers", range(1, WORKERS_MAX + 1))
def test_every_slot_has_one_owner_and_the_owners_have_almost_equal_shares(workers: int) -> None:
    owned = [slots_of_worker(number, workers) for number in range(workers)]
    assert [slot for slots in owned for slot in slots] == list(range(SLOTS))
    assert max(map(len, owned)) - min(map(len, owned)) <= 1
    assert all(worker_of_slot(slot, workers) == number for number, slots in enumerate(owned) for slot in slots)


def test_four_subscriptions_of_a_consumer_are_spread_over_four_workers() -> None:
    for consumer in ("con_a", "con_b", "con_c"):
        assert {worker_of_slot(slot_in_turn(consumer, turn), 4) for turn in range(4)} == {0, 1, 2, 3}


def test_the_limits_of_all_workers_together_are_those_of_the_settings() -> None:
    whole = settings(DELIVERY_WORKERS="3", DELIVERY_IN_FLIGHT_MAX="100", DELIVERY_TOKEN_CALLS_MAX="2", DELIVERY_LANE_IN_FLIGHT_MAX="50")
    seats = [WorkerSeat(number, Path("/run/hooktide")) for number in range(3)]
    shares = [settings_of_worker(whole, seat) for seat in seats]
    assert sum(share.delivery_in_flight_max for share in shares) == 99
    assert {share.delivery_token_calls_max for share in shares} == {1}
    # A subscription belongs to one worker, which has its whole limit.
    assert {share.delivery_lane_in_flight_max for share in shares} == {50}
    assert len({share.delivery_listen for share in shares}) == 3
    assert shares[1].delivery_listen == worker_socket(seats[1]) == "unix:/run/hooktide/delivery-1.sock"


def test_ledgers_of_another_number_of_workers_are_refused(tmp_path: Path) -> None:
    database = tmp_path / "delivery.db"
    for workers in (1, 4):
        refuse_other_cut(database, workers)
    for number in range(2):
        ledger_file(database, number).touch()
    refuse_other_cut(database, 2)
    for workers in (1, 3):
        with pytest.raises(StartError, match="set it to 2"):
            refuse_other_cut(database, workers)
    database.unlink()
    with pytest.raises(StartError, match="put the missing files back"):
        refuse_other_cut(database, 2)
