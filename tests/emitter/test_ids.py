import time
import uuid
from itertools import pairwise

from hooktide._ids import TimeOrderedIds


def test_ids_are_uuids_of_version_7_that_carry_their_time() -> None:
    before = time.time_ns() // 1_000_000
    made = uuid.UUID(TimeOrderedIds()())
    assert (made.version, made.variant) == (7, uuid.RFC_4122)
    assert before <= made.int >> 80 <= time.time_ns() // 1_000_000


def test_ids_grow_strictly_however_fast_they_are_made() -> None:
    new_id = TimeOrderedIds()
    ids = [new_id() for _ in range(50_000)]
    assert all(earlier < later for earlier, later in pairwise(ids))
