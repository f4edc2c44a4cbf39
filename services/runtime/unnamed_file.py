"""Unnamed files: content in memory that a library can read by a path, as OpenSSL wants certificates and keys."""

import contextlib
import os
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def unnamed_file(content: bytes) -> Iterator[str]:
    """Hold `content` in a file without a name, in memory if the system has such files; yields a path that reads it once."""
    in_memory = getattr(os, "memfd_create", None)
    with tempfile.TemporaryFile() if in_memory is None else os.fdopen(in_memory("hooktide"), "w+b") as file:
        file.write(content)
        file.flush()
        file.seek(0)
        yield f"/dev/fd/{file.fileno()}"
