import pytest

from services.eventlog.record import PARTITIONS, partition_of


@pytest.mark.parametrize(
    ("key", "partition"),
    [
        ("", 0),
        ("a", 0xE8B7BE43 % 256),
        ("abc", 0x352441C2 % 256),
        ("123456789", 0xCBF43926 % 256),
        ("The quick brown fox jumps over the lazy dog", 0x414FA339 % 256),
        ("/shop\x00eu-7", 0x27751792 % 256),
        ("größe", 0x5BD3A989 % 256),
        ("🛒", 0xDDD997CF % 256),
        ("\ud800", 0x1DC4A528 % 256),
    ],
)
def test_the_partition_of_a_key_never_changes(key: str, partition: int) -> None:
    """The CRC-32 of published check values and of typical keys: another function would break the order at an upgrade."""
    assert partition_of(key) == partition


def test_keys_spread_over_all_partitions() -> None:
    counts = [0] * PARTITIONS
    for number in range(256_000):
        counts[partition_of(f"/shop\x00{number}")] += 1
    assert PARTITIONS == 256
    assert min(counts) > 800
    assert max(counts) < 1200
