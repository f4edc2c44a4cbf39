"""Inserting: writes rows by statements of many rows each, which is much faster than one statement a row while another thread is busy.

flush_writer, ranges → [inserting]
"""

import functools
import sqlite3
from collections.abc import Sequence

# Only a few sizes, so that each statement is prepared once: preparing a long statement takes as long as running it.
_ROWS_PER_STATEMENT = (128, 32, 8, 2, 1)
_STATEMENTS_MAX = 64


def insert(connection: sqlite3.Connection, head: str, columns: int, rows: Sequence[tuple[object, ...]], tail: str = "") -> int:
    """Run `head` VALUES … `tail` for all rows; return how many rows were inserted or updated."""
    start = written = 0
    while start < len(rows):
        count = next(size for size in _ROWS_PER_STATEMENT if size <= len(rows) - start)
        part = rows[start : start + count]
        written += connection.execute(_statement(head, columns, count, tail), [value for row in part for value in row]).rowcount
        start += count
    return written


@functools.lru_cache(_STATEMENTS_MAX)
def _statement(head: str, columns: int, rows: int, tail: str) -> str:
    row_text = "(" + ",".join("?" * columns) + ")"
    return f"{head} VALUES {','.join([row_text] * rows)} {tail}"
