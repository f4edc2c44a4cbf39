import pytest

from services.cli.supervise.service_environment import (
    SERVICES,
    SINK_ALLOW_LOCAL,
    Ports,
    delivery_workers,
    environment,
    is_loopback,
    planned,
    reachable,
    sink_allow,
)
from services.runtime.configuration.settings import ALL
from services.runtime.configuration.settings_reader import variable
from services.runtime.service_process import Addresses


def test_by_default_everything_listens_on_loopback_at_its_own_port() -> None:
    listen = {name: planned(name, host="127.0.0.1", ports=Ports({}), environ={}) for name in SERVICES}
    declared = {field: str(kind.model_fields[field].default) for kind in ALL for field in kind.model_fields}
    for name, addresses in listen.items():
        assert addresses.listen == declared[f"{name}_listen"]
        assert addresses.admin == declared[f"{name}_admin_listen"]


@pytest.mark.parametrize(
    ("ports", "environ", "expected"),
    [
        (Ports({"ingest": 7}), {"HOOKTIDE_INGEST_LISTEN": "0.0.0.0:9"}, "10.0.0.1:7"),
        (Ports({}), {"HOOKTIDE_INGEST_LISTEN": "0.0.0.0:9"}, "0.0.0.0:9"),
        (Ports({}), {"HOOKTIDE_INGEST_LISTEN": "unix:/run/ingest"}, "unix:/run/ingest"),
        (Ports({}), {"HOOKTIDE_INGEST_LISTEN": ""}, "10.0.0.1:50052"),
        (Ports({}, any_free=True), {}, "10.0.0.1:0"),
        (Ports({"ingest": 7}, any_free=True), {}, "10.0.0.1:7"),
    ],
)
def test_the_command_line_comes_before_the_environment_and_that_before_the_default(
    ports: Ports, environ: dict[str, str], expected: str
) -> None:
    assert planned("ingest", host="10.0.0.1", ports=ports, environ=environ).listen == expected


def test_a_host_exposes_only_what_is_called_from_outside() -> None:
    hosts = {name: planned(name, host="::", ports=Ports({}), environ={}) for name in SERVICES}
    assert {name for name, addresses in hosts.items() if addresses.listen.startswith("[::]:")} == {"gateway", "ingest"}
    assert all(addresses.admin.startswith("127.0.0.1:") for addresses in hosts.values())


def test_an_address_of_every_interface_is_reached_over_loopback() -> None:
    assert [reachable(address) for address in ("0.0.0.0:1", "[::]:2", "10.0.0.1:3", "unix:/x")] == [
        "127.0.0.1:1",
        "[::1]:2",
        "10.0.0.1:3",
        "unix:/x",
    ]


def test_a_service_is_told_where_the_others_are_unless_the_user_has_said_it() -> None:
    others = {"subscription": "0.0.0.0:1", "ingest": "127.0.0.1:2", "delivery": "127.0.0.1:3", "gateway": "127.0.0.1:4"}
    base = {"HOME": "/", "HOOKTIDE_KEY": "hkt_secret", "HOOKTIDE_INGEST_TARGET": "elsewhere:5"}
    environ = environment("delivery", own=Addresses("127.0.0.1:3", "127.0.0.1:6"), others=others, base=base)
    assert environ == {
        "HOME": "/",
        "HOOKTIDE_INGEST_TARGET": "elsewhere:5",
        "HOOKTIDE_SUBSCRIPTION_TARGET": "127.0.0.1:1",
        "HOOKTIDE_DELIVERY_LISTEN": "127.0.0.1:3",
        "HOOKTIDE_DELIVERY_ADMIN_LISTEN": "127.0.0.1:6",
    }
    known = {variable(field) for kind in ALL for field in kind.model_fields}
    assert {name for name in environ if name.startswith("HOOKTIDE_")} <= known


@pytest.mark.parametrize(
    ("address", "alone"),
    [
        ("127.0.0.1:8080", True),
        ("127.9.9.9:1", True),
        ("[::1]:8080", True),
        ("localhost:8080", True),
        ("unix:/run/hooktide", True),
        ("0.0.0.0:8080", False),
        ("[::]:8080", False),
        ("*:8080", False),
        ("10.0.0.7:8080", False),
        ("hooktide.internal:8080", False),
    ],
)
def test_only_this_machine_reaches_a_loopback_address(address: str, alone: bool) -> None:  # noqa: FBT001 - as the table has it
    assert is_loopback(address) is alone


@pytest.mark.parametrize(
    ("given", "others_reach", "local", "allowed"),
    [
        (None, False, False, SINK_ALLOW_LOCAL),
        (None, True, False, ""),
        (None, True, True, SINK_ALLOW_LOCAL),
        ("", False, False, ""),
        ("", True, True, SINK_ALLOW_LOCAL),
        ("http,10.0.0.0/8", True, False, "http,10.0.0.0/8"),
        ("10.0.0.0/8", True, True, f"10.0.0.0/8,{SINK_ALLOW_LOCAL}"),
    ],
)
def test_local_sinks_are_for_those_who_say_so_or_are_alone(given: str | None, others_reach: bool, local: bool, allowed: str) -> None:  # noqa: FBT001 - as the table has it
    environ = {} if given is None else {"HOOKTIDE_SINK_ALLOW": given}
    assert sink_allow(environ, others_reach=others_reach, local=local) == allowed


@pytest.mark.parametrize(("asked", "cores", "workers"), [("auto", 1, 1), ("auto", 3, 1), ("auto", 8, 6), ("auto", 64, 16), ("4", 2, 4)])
def test_there_are_as_many_workers_as_the_cores_permit_unless_a_number_is_given(asked: str, cores: int, workers: int) -> None:
    assert delivery_workers(asked, cores) == workers


@pytest.mark.parametrize("asked", ["0", "17", "-1", "many", ""])
def test_a_wrong_number_of_workers_is_refused(asked: str) -> None:
    with pytest.raises(ValueError, match="write auto, or a number from 1 to 16"):
        delivery_workers(asked, 8)
