import contextlib
import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from services.cli.supervise.port_reservation import Reservations
from services.runtime.service_process import Addresses, StartError


def port_of(address: str) -> int:
    return int(address.rpartition(":")[2])


@pytest.fixture
def reservations() -> Iterator[Reservations]:
    reservations = Reservations()
    yield reservations
    reservations.release()


def test_a_reserved_port_can_be_bound_by_name(reservations: Reservations) -> None:
    settled = reservations.settle(Addresses(listen="127.0.0.1:0", admin="127.0.0.1:0"))
    assert port_of(settled.listen) != port_of(settled.admin)
    with closing(socket.create_server(("127.0.0.1", port_of(settled.listen)))) as server:
        server.listen()
        with closing(socket.create_connection(("127.0.0.1", port_of(settled.listen)))):
            pass


def test_a_reserved_port_is_given_to_nobody_who_asks_for_a_free_one(reservations: Reservations) -> None:
    reserved = {port_of(reservations.settle(Addresses(listen="127.0.0.1:0", admin="unix:/x")).listen) for _ in range(50)}
    assert len(reserved) == 50
    with contextlib.ExitStack() as stack:
        others = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(200)]
        assert not reserved & {other.getsockname()[1] for other in others}


def test_addresses_with_a_port_stay_as_they_are(reservations: Reservations) -> None:
    addresses = Addresses(listen="unix:/x:0", admin="10.1.2.3:80")
    assert reservations.settle(addresses) == addresses


def test_an_address_of_another_machine_is_refused(reservations: Reservations) -> None:
    with pytest.raises(StartError, match="of this machine"):
        reservations.settle(Addresses(listen="192.0.2.1:0", admin="127.0.0.1:0"))
