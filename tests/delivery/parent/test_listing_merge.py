import random
from uuid import UUID

from hooktide.delivery.v1 import delivery_pb2 as pb

from services.delivery.parent.listing_merge import SourcePage, merged_page, raw_id


def delivery(number: int, state: pb.DeliveryState.ValueType = pb.DELIVERY_STATE_DELIVERED) -> pb.Delivery:
    return pb.Delivery(id=f"dlv_{number:032x}", state=state)


def raw(number: int) -> bytes:
    return UUID(int=number).bytes


def page_of(numbers: list[int], before: int | None, limit: int) -> SourcePage:
    """Return a page as a worker answers it."""
    rest = sorted((each for each in numbers if before is None or each < before), reverse=True)
    return SourcePage([delivery(each) for each in rest[:limit]], raw(rest[limit - 1]) if len(rest) > limit else None)


def test_the_pages_of_several_sources_hold_everything_once_in_order() -> None:
    chance = random.Random(5)
    for _ in range(200):
        sources = [chance.sample(range(1000), chance.randint(0, 40)) for _ in range(chance.randint(1, 5))]
        limit = chance.randint(1, 15)
        seen: list[int] = []
        before: int | None = None
        while True:
            deliveries, before_id = merged_page([page_of(each, before, limit) for each in sources], limit)
            assert len(deliveries) <= limit
            seen += [int.from_bytes(raw_id(each)) for each in deliveries]
            if before_id is None:
                break
            before = int.from_bytes(before_id)
        assert seen == sorted({each for source in sources for each in source}, reverse=True)


def test_a_page_ends_where_its_first_source_ends_although_it_has_room() -> None:
    short = SourcePage([delivery(9)], raw(9))
    assert merged_page([short, SourcePage([delivery(10), delivery(5)], None)], 50) == ([delivery(10), delivery(9)], raw(9))


def test_of_two_copies_the_later_source_counts() -> None:
    old, new = delivery(1, pb.DELIVERY_STATE_PENDING), delivery(1)
    assert merged_page([SourcePage([old], None), SourcePage([new], None)], 50) == ([new], None)
