"""In-memory file: content in memory that a library can read by a path, as OpenSSL does with certificates and keys."""

import os
import tempfile
from typing import BinaryIO


def open_unnamed(content: bytes) -> BinaryIO:
    """Return an open file without a name that holds `content`, in memory if the system supports that; the caller closes it."""
    in_memory = getattr(os, "memfd_create", None)
    file: BinaryIO = tempfile.TemporaryFile() if in_memory is None else os.fdopen(in_memory("hooktide"), "w+b")  # noqa: SIM115 - the caller's
    file.write(content)
    file.flush()
    return file


def path_of(file: BinaryIO) -> str:
    """Return a path by which an open file can be read once, from its beginning."""
    file.seek(0)
    return f"/dev/fd/{file.fileno()}"
