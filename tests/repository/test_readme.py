import re
from pathlib import Path

from tests.repository import settings_table

README = Path(__file__).parents[2] / "README.md"


def test_the_readme_lists_every_setting_with_its_default() -> None:
    """If this test fails, `python -m tests.repository.settings_table` prints the table that belongs between the markers."""
    marked = re.search(r"<!-- settings -->\n(.*?)\n<!-- /settings -->", README.read_text(encoding="utf-8"), re.DOTALL)

    assert marked is not None
    assert marked[1].strip().split("\n") == [*settings_table.HEADER, *settings_table.rows()]
