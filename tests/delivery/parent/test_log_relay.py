import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

import pytest
from hooktide.ingest.v1 import event_log_pb2 as pb
from prometheus_client import REGISTRY

from services.runtime.errors import Failure, Reason
from tests.support.event_logs import RETENTION_S, appended, new_events, opened
from tests.support.relaying import Relaying, relaying
from tests.support.waiting import until

WINDOW_BYTES = 16 * 1024


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[Relaying]:
    async with opened(tmp_path / "log.db") as it, relaying(it.log, bytes_max=WINDOW_BYTES) as world:
        yield world


def sample(name: str) -> float:
    return REGISTRY.get_sample_value(name) or 0.0


class Follower:
    """A follower of the relay without gRPC in between, so that nothing is buffered for it."""

    def __init__(self, world: Relaying, position: int = 0, *, batch_records_max: int = 7) -> None:
        self.positions: list[int] = []
        request = pb.FollowLogRequest(after=[pb.ShardPosition(position=position)], batch_records_max=batch_records_max)
        self._messages: AsyncGenerator[bytes, None] = world.relay.follow(request)
        self.bytes: list[bytes] = []

    async def take(self) -> None:
        """Take one message."""
        async with asyncio.timeout(60):
            message = await anext(self._messages)
        records = pb.FollowLogResponse.FromString(message).records
        self.bytes.append(message)
        self.positions += [record.position for record in records]

    async def take_through(self, position: int) -> None:
        """Take messages up to a position."""
        while not self.positions or self.positions[-1] < position:
            await self.take()

    async def leave(self) -> None:
        """End the stream."""
        await self._messages.aclose()


async def test_followers_at_the_head_share_one_stream_and_get_the_same_bytes(world: Relaying) -> None:
    own_before = sample("hooktide_relay_own_streams_total")
    followers = [Follower(world) for _ in range(5)]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(follower.take_through(30)) for follower in followers]
        await until(lambda: sample("hooktide_relay_joined_workers") == 5, what="all followers have joined")
        for start in range(0, 30, 10):
            await appended(world.log, new_events(range(start, start + 10)))
    assert all(task.done() for task in tasks)
    shared = followers[0].bytes[1:]
    assert shared
    assert all(follower.bytes[1:] == shared for follower in followers)
    # Each follower looks at the log once. Later records are read once for all.
    assert sample("hooktide_relay_own_streams_total") - own_before == 5
    for follower in followers:
        assert follower.positions == list(range(1, 31))
        await follower.leave()


async def test_a_follower_that_lags_reads_alone_and_joins_again(world: Relaying) -> None:
    slow, quick = Follower(world), Follower(world)
    own_before = sample("hooktide_relay_own_streams_total")
    for number in (1, 2):  # the second one comes by the shared stream
        await appended(world.log, new_events(range(number - 1, number)))
        await slow.take_through(number)
        await quick.take_through(number)
    joined_at = sample("hooktide_relay_own_streams_total")
    assert joined_at - own_before == 2
    for start in range(2, 202, 20):
        await appended(world.log, new_events(range(start, start + 20), size_bytes=500))
        await quick.take_through(start + 20)
    await slow.take_through(202)
    assert sample("hooktide_relay_own_streams_total") - joined_at == 1
    await appended(world.log, new_events(range(202, 203)))
    await slow.take_through(203)
    await quick.take_through(203)
    assert sample("hooktide_relay_own_streams_total") - joined_at == 1
    for follower in (slow, quick):
        assert follower.positions == list(range(1, 204))
        await follower.leave()


@pytest.mark.parametrize("seed", range(12))
async def test_every_follower_sees_every_record_once_in_order_while_others_join_lag_or_leave(world: Relaying, seed: int) -> None:
    chance = random.Random(seed)
    head = 0
    followers: list[tuple[int, Follower]] = []
    for _ in range(120):
        step = chance.choices(["join", "leave", "append", "take"], [1, 1, 2, 2])[0]
        if step == "join":
            place = chance.choice([0, head, chance.randint(0, head)])
            followers.append((place, Follower(world, place, batch_records_max=chance.randint(1, 20))))
        elif step == "append":
            count = chance.randint(1, 30)
            await appended(world.log, new_events(range(head, head + count), size_bytes=chance.choice([20, 300, 3000])))
            head += count
        elif followers and step == "leave":
            _, gone = followers.pop(chance.randrange(len(followers)))
            await gone.leave()
        elif followers:
            await _take_some(*chance.choice(followers), head, chance.randint(1, 6))
    for place, follower in followers:
        if place < head:
            await follower.take_through(head)
        assert follower.positions == list(range(place + 1, head + 1)), f"a follower from {place}"
    for _, follower in followers:
        await follower.leave()


async def _take_some(place: int, follower: Follower, head: int, messages: int) -> None:
    """Take messages, but do not wait for records that are not in the log."""
    for _ in range(messages):
        if not follower.bytes or max([place, *follower.positions]) < head:
            await follower.take()


async def test_the_log_says_why_a_place_does_not_fit(world: Relaying) -> None:
    follower = Follower(world, 7)
    with pytest.raises(Failure) as caught:
        await follower.take()
    assert (caught.value.reason, caught.value.fields[0].field) == (Reason.POSITION_MISMATCH, "after[0]")


async def test_a_change_of_the_retention_ends_every_stream_so_that_followers_learn_it(world: Relaying) -> None:
    followers = [Follower(world) for _ in range(2)]
    await appended(world.log, new_events(range(1)))
    for follower in followers:
        await follower.take_through(1)
    waits = [asyncio.create_task(follower.take()) for follower in followers]
    await until(lambda: sample("hooktide_relay_joined_workers") == 2, what="both have joined")
    world.log.change_limits(bytes_max=1 << 40, retention_s=RETENTION_S * 2)
    for wait in waits:
        with pytest.raises(Failure) as caught:
            await wait
        assert caught.value.reason is Reason.UNAVAILABLE
    again = Follower(world, 1)
    await again.take()
    assert pb.FollowLogResponse.FromString(again.bytes[0]).retention.seconds == RETENTION_S * 2
    await again.leave()


async def test_the_relay_reads_nothing_once_the_last_follower_has_left(world: Relaying) -> None:
    follower = Follower(world)
    await appended(world.log, new_events(range(1)))
    await follower.take_through(1)
    taking = asyncio.create_task(follower.take())
    await until(lambda: sample("hooktide_relay_joined_workers") == 1, what="it has joined")
    taking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await taking
    await follower.leave()
    await until(lambda: not world.relay.is_reading, what="the shared stream has ended")
    again = Follower(world)
    await again.take_through(1)
    assert again.positions == [1]
    await again.leave()
