import pytest

from services.runtime.ids import id_bytes, id_text, is_id, new_id


def test_an_id_is_its_type_and_a_uuid_without_dots() -> None:
    made = new_id("sub")
    assert is_id(made, "sub")
    assert not is_id(made, "evt")
    assert "." not in made
    assert id_text("sub", id_bytes(made)) == made


def test_ids_sort_by_the_time_of_their_creation() -> None:
    made = [new_id("evt") for _ in range(1000)]
    assert sorted(made) == made
    assert len(set(made)) == len(made)


@pytest.mark.parametrize(
    "text", ["", "sub_", "sub_" + "0" * 31, "sub_" + "0" * 33, "sub_" + "G" * 32, "sub_" + "0" * 32 + "\n", "SUB_" + "0" * 32]
)
def test_everything_else_is_not_an_id(text: str) -> None:
    assert not is_id(text, "sub")
