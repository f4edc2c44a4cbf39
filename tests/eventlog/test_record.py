import pytest

from services.eventlog.record import PARTITIONS, partition_of


@pytest.mark.parametrize(
    ("key", "partition"),
    [
        ("", 0),
        ("a", 0xE8B7BE43 % 64),
        ("abc", 0x352441C2 % 64),
        ("123456789", 0xCBF43926 % 64),
        ("The quick brown fox jumps over the lazy dog", 0x414FA339 % 64),
        ("/shop\x00eu-7", 0x27751792 % 64),
        ("größe", 0x5BD3A989 % 64),
        ("🛒", 0xDDD997CF % 64),
        ("\ud800", 0x1DC4A528 % 64),
    ],
)
def test_the_partition_of_a_key_never_changes(key: str, partition: int) -> None:
    """The CRC-32 of published check values and of typical keys: another function would break the order at an upgrade."""
    assert partition_of(key) == partition


def test_keys_spread_over_all_partitions() -> None:
    counts = [0] * PARTITIONS
    for number in range(64_000):
        counts[partition_of(f"/shop\x00{number}")] += 1
    assert PARTITIONS == 64
    assert min(counts) > 800
    assert max(counts) < 1200
