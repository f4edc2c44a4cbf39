import asyncio
import contextlib

import pytest

from services.runtime.authentication_throttle import DELAY_MAX_S
from services.runtime.errors import Failure, Reason
from services.runtime.rpc.access import Access
from services.runtime.rpc.call_guard import PUBLIC_CALLS_PER_NETWORK_MAX, CallGuard, CallLimits

PEER, SAME_ADDRESS, OTHER_ADDRESS = "ipv4:192.0.2.1:1000", "ipv4:192.0.2.1:1001", "ipv4:192.0.2.2:1000"


def is_admitted(guard: CallGuard, peer: str, access: Access) -> bool:
    try:
        with guard.admitted(peer, access):
            return True
    except Failure as failure:
        if failure.reason is not Reason.OVERLOADED:
            raise
        return False


def test_calls_under_way_are_counted_by_address() -> None:
    guard = CallGuard(CallLimits(calls_per_network_max=2))
    with guard.admitted(PEER, Access.KEY), guard.admitted(SAME_ADDRESS, Access.KEY):
        assert not is_admitted(guard, PEER, Access.KEY)
        assert is_admitted(guard, OTHER_ADDRESS, Access.KEY)
        assert is_admitted(guard, PEER, Access.SERVICE)
        assert is_admitted(guard, PEER, Access.PUBLIC)
        guard.change(CallLimits(calls_per_network_max=3))
        assert is_admitted(guard, PEER, Access.KEY)
    guard.change(CallLimits(calls_per_network_max=1))
    assert is_admitted(guard, PEER, Access.KEY)


def test_addresses_of_proxies_have_no_share() -> None:
    guard = CallGuard(CallLimits(calls_per_network_max=1, is_exempt=lambda address: address == "192.0.2.1"))
    with guard.admitted(PEER, Access.KEY), guard.admitted(OTHER_ADDRESS, Access.KEY):
        assert is_admitted(guard, SAME_ADDRESS, Access.KEY)
        assert not is_admitted(guard, OTHER_ADDRESS, Access.KEY)


def test_public_calls_are_counted_apart() -> None:
    guard = CallGuard(CallLimits(calls_per_network_max=1))
    with contextlib.ExitStack() as stack:
        for _ in range(PUBLIC_CALLS_PER_NETWORK_MAX):
            stack.enter_context(guard.admitted(PEER, Access.PUBLIC))
        assert not is_admitted(guard, PEER, Access.PUBLIC)
        assert is_admitted(guard, OTHER_ADDRESS, Access.PUBLIC)
        assert is_admitted(guard, PEER, Access.KEY)
    assert is_admitted(guard, PEER, Access.PUBLIC)


@pytest.mark.parametrize(("exempt", "waits"), [(False, True), (True, False)])
async def test_the_refusal_of_a_stranger_waits_once_the_burst_is_over(*, exempt: bool, waits: bool) -> None:
    guard = CallGuard(CallLimits(failures_burst=3, failures_per_second=1 / DELAY_MAX_S, is_exempt=lambda _address: exempt))
    for _ in range(3):
        await guard.refused(PEER)
    refused = asyncio.ensure_future(guard.refused(PEER))
    done, _ = await asyncio.wait([refused], timeout=0.2)
    assert bool(done) is not waits
    # Another address counts separately. A second refusal on one connection does not wait: the connection is closed instead.
    await guard.refused(OTHER_ADDRESS)
    await guard.refused(PEER)
    refused.cancel()
