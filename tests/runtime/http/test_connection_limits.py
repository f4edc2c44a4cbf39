from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.runtime.http.connection_limits import Connection, ConnectionLimits, Connections

STEP = st.tuples(st.sampled_from(["open", "close", "serve", "await"]), st.integers(0, 9), st.sampled_from(["a", "b", None]))


class Listener:
    """Connections by name, and the names of the connections that gave way, in order."""

    def __init__(self, connections_max: int = 100, network_max: int = 100) -> None:
        limits = ConnectionLimits(connections_max, network_max, 1e6)
        self.connections = Connections(limits)
        self.open: dict[str, Connection] = {}
        self.gave_way: list[str] = []

    def connect(self, name: str, network: str | None = "a") -> bool:
        """Open a connection if it is admitted."""
        admitted = self.connections.admit(network)
        if admitted:
            self.open[name] = Connection(network, self._giving_way(name))
            self.connections.opened(self.open[name])
        return admitted

    def close(self, name: str) -> None:
        """Close a connection."""
        self.connections.closed(self.open.pop(name))

    def _giving_way(self, name: str) -> Callable[[], None]:
        def give_way() -> None:
            del self.open[name]
            self.gave_way.append(name)

        return give_way


def test_the_connection_that_awaits_its_client_for_longest_gives_way() -> None:
    listener = Listener(connections_max=3)
    for name in "123":
        assert listener.connect(name)
    listener.connections.serve(listener.open["1"])
    listener.connections.await_client(listener.open["1"])
    for name in "456":
        assert listener.connect(name)
    assert listener.gave_way == ["2", "3", "1"]
    assert len(listener.connections) == 3


def test_a_connection_that_is_being_served_never_gives_way() -> None:
    listener = Listener(connections_max=2)
    for name in "12":
        assert listener.connect(name)
        listener.connections.serve(listener.open[name])
    assert not listener.connect("3")
    listener.close("1")
    assert listener.connect("4")
    assert not listener.gave_way


def test_connections_that_showed_a_key_give_way_last() -> None:
    listener = Listener(connections_max=3)
    for name in "123":
        assert listener.connect(name)
    listener.connections.serve(listener.open["1"])
    listener.open["1"].is_known = True
    listener.connections.await_client(listener.open["1"])
    for name in "45":
        assert listener.connect(name)
    assert listener.gave_way == ["2", "3"]


def test_a_network_at_its_limit_makes_room_among_its_own_connections() -> None:
    listener = Listener(network_max=2)
    assert listener.connect("other", network="b")
    for name in "123":
        assert listener.connect(name)
    assert listener.gave_way == ["1"]
    for name in "23":
        listener.connections.serve(listener.open[name])
    assert not listener.connect("4")
    assert listener.connect("another", network="b")
    assert listener.connect("exempt", network=None)


def test_a_lower_limit_closes_what_awaits_its_clients_beyond_it() -> None:
    listener = Listener(connections_max=4)
    for name in "1234":
        assert listener.connect(name)
    listener.connections.serve(listener.open["2"])
    listener.connections.change(ConnectionLimits(connections_max=2))
    assert sorted(listener.open) == ["2", "4"]
    assert listener.connect("5")
    assert listener.gave_way == ["1", "3", "4"]


def test_a_network_that_opens_connections_too_fast_may_not_send_on_all_of_them() -> None:
    connections = Connections(ConnectionLimits(network_connections_per_second=5.0))
    assert [connections.may_speak("a", 50.0) for _ in range(12)] == [True] * 10 + [False] * 2
    assert connections.may_speak(None, 50.0)
    assert connections.may_speak("b", 50.0)
    assert [connections.may_speak("a", 50.5) for _ in range(4)] == [True, True, False, False]


@pytest.mark.parametrize("network_max", [2, 9])
@given(steps=st.lists(STEP))
def test_whatever_happens_the_limits_hold_and_every_connection_is_counted_once(
    network_max: int, steps: list[tuple[str, int, str | None]]
) -> None:
    listener, number = Listener(connections_max=5, network_max=network_max), 0
    for step, which, network in steps:
        names = list(listener.open)
        if step == "open":
            number += 1
            listener.connect(str(number), network)
        elif names:
            name = names[which % len(names)]
            match step:
                case "close":
                    listener.close(name)
                case "serve":
                    listener.connections.serve(listener.open[name])
                case _:
                    listener.connections.await_client(listener.open[name])
        assert len(listener.connections) == len(listener.open) <= 5
        for each in ("a", "b"):
            assert sum(connection.network == each for connection in listener.open.values()) <= network_max
