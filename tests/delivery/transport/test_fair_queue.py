import pytest

from services.delivery.transport.exchange import Exchange, Target
from services.delivery.transport.fair_queue import FairQueue
from services.delivery.transport.protocol import Request

_TARGET = Target("", ("127.0.0.1",), 80, is_tls=False, host="127.0.0.1", path="/", origin=("127.0.0.1", 80))


def waiting(owner: str) -> Exchange:
    return Exchange(Request("http://127.0.0.1/", {}, b"", owner=owner), lambda _answer: None, _TARGET)


def queue_of(*exchanges: Exchange) -> FairQueue:
    queue = FairQueue()
    for exchange in exchanges:
        queue.put(exchange)
    return queue


def test_owners_take_turns_and_each_owners_requests_keep_their_order() -> None:
    busy, other = [waiting("busy") for _ in range(4)], [waiting("other") for _ in range(2)]
    queue = queue_of(*busy, *other)
    taken = [queue.take() for _ in range(6)]
    assert taken == [busy[0], other[0], busy[1], other[1], busy[2], busy[3]]
    assert not queue
    with pytest.raises(StopIteration):
        queue.take()


def test_a_request_that_is_taken_out_leaves_the_others_their_turns() -> None:
    first, second, other = waiting("busy"), waiting("busy"), waiting("other")
    queue = queue_of(first, second, other)
    queue.remove(first)
    assert queue.exchanges() == [second, other]
    queue.remove(other)
    assert list(queue) == ["busy"]
    with pytest.raises(KeyError):
        queue.remove(other)
    with pytest.raises(ValueError, match="not in deque"):
        queue.remove(first)
