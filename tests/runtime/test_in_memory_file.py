from pathlib import Path

import pytest

from services.runtime.in_memory_file import open_unnamed, path_of


@pytest.mark.parametrize("content", [b"", b"-----BEGIN CERTIFICATE-----\n", bytes(range(256)) * 1000])
def test_a_library_can_read_the_content_by_a_path_again_and_again(content: bytes) -> None:
    with open_unnamed(content) as file:
        assert Path(path_of(file)).read_bytes() == content
        assert Path(path_of(file)).read_bytes() == content
