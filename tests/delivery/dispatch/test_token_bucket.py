import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.delivery.dispatch.token_bucket import Bucket
from tests.delivery.conftest import Play
from tests.simulation.registry import Wish
from tests.simulation.scenarios import ALPHA, finished, started
from tests.simulation.world import World


@given(st.floats(0.01, 10_000), st.lists(st.floats(0, 3), max_size=60))
def test_in_no_second_are_there_more_than_the_rate(rate: float, rests_s: list[float]) -> None:
    """Callers may ask at any moments; a rate below one a second means one attempt in 1/rate seconds."""
    bucket, now = Bucket(), 1000.0
    began: list[float] = []
    window_s, most = (1.0, rate) if rate >= 1 else (1 / rate, 1.0)
    for rest_s in rests_s:
        now += rest_s
        for _ in range(50):
            if bucket.wait_s(rate, now) > 0:
                break
            bucket.take(rate, now)
            began.append(now)
    for index, first in enumerate(began):
        assert sum(first <= each < first + window_s * (1 - 1e-5) for each in began[index:]) <= most + 1 - 1e-9


@given(st.floats(0.01, 10_000))
def test_who_waits_as_long_as_told_finds_a_token(rate: float) -> None:
    bucket, now = Bucket(), 0.0
    for _ in range(1000):
        now += bucket.wait_s(rate, now)
        assert bucket.wait_s(rate, now) == pytest.approx(0, abs=1e-6)
        bucket.take(rate, now)
    assert 1000 / now >= 0.9 * rate
    assert bucket.full_in_s(rate, now + bucket.full_in_s(rate, now)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(("rate", "count"), [(0.5, 20), (5.0, 60), (200.0, 600)])
def test_a_lane_keeps_to_its_rate_and_the_others_do_not_wait_for_it(play: Play, rate: float, count: int) -> None:
    """The rate also holds while the lane is idle and forgotten; a delivery that waits for a token loses no attempt."""

    async def scenario(world: World) -> None:
        slow = Wish(ALPHA.id, ALPHA.consumer_id, ALPHA.types, rate_per_second=rate)
        await started(world, slow)
        for _ in range(4):
            world.publish(count // 4, "alpha")
            await world.settle(600.0)
        await finished(world)
        began = [taken.at for taken in world.endpoints.log]
        window_s, most = (1.0, rate) if rate >= 1 else (1 / rate, 1.0)
        assert len(began) == count
        assert {taken.number for taken in world.endpoints.log} == {1}
        assert max(sum(first <= each < first + window_s * 0.999 for each in began) for first in began) <= most

    play(scenario, HOOKTIDE_DELIVERY_LANE_PENDING_MAX="20")
