from pathlib import Path

from services.delivery.worker_seats import settings_of_worker, worker_socket
from services.runtime.configuration.settings import DeliverySettings
from services.runtime.configuration.settings_reader import read_settings
from services.runtime.service_process import WorkerSeat


def settings(**variables: str) -> DeliverySettings:
    return read_settings(DeliverySettings, {f"HOOKTIDE_{name}": value for name, value in variables.items()})


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
