"""Ranges: the events without a row, which are owed, ended or set aside, and the jobs that hand them out.

flush_writer, ledger → [ranges: inserting]

Law 1: `at` only grows, in every append shard, and `until` is set once. A flush that breaks this fails as a whole.
Law 2: what is written twice stands once. Ended ranges that touch each other become one.
"""

import functools
import sqlite3
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import starmap

import orjson

from services.delivery.errors import LedgerInvariantError
from services.delivery.ledger.rows import EndedRow, JobKey, JobRow, Positions, RangeKey, RangeRow, SetAsideRow
from services.delivery.ledger.sqlite.inserting import insert
from services.delivery.model import State
from services.runtime.consumer_scope import Everyone, Scope
from services.runtime.ids import slot_of

_DROPPED_MAX = 2_000
_EXAMINED_MAX = 20_000


def write_ranges(connection: sqlite3.Connection, ranges: Sequence[RangeRow]) -> None:
    """Insert or move owed ranges. Raises `LedgerInvariantError` if one of them would go back, or end elsewhere than before."""
    for shards in {len(row.at) for row in ranges}:
        some = [row for row in ranges if len(row.at) == shards]
        values = [(*row.key, _encode(row.at), _encode_end(row.until), row.opened_ms, row.consumer_id) for row in some]
        condition = _moves_on(shards)
        written = insert(
            connection,
            "INSERT INTO owed",
            len(RangeRow._fields),
            values,
            f"ON CONFLICT (subscription_id, job_id, seq) DO UPDATE SET at = excluded.at, until = excluded.until WHERE {condition}",
        )
        if written != len(values):
            _refuse(connection, some)


@functools.lru_cache
def _moves_on(shards: int) -> str:
    """Return the condition under which the row `excluded` may replace the one in `owed`."""
    grown = [f"json_extract(excluded.at, '$[{each}]') >= json_extract(owed.at, '$[{each}]')" for each in range(shards)]
    same = "json_array_length(owed.at) = json_array_length(excluded.at) AND (owed.until IS NULL OR owed.until IS excluded.until)"
    return " AND ".join((same, *grown))


def _refuse(connection: sqlite3.Connection, ranges: Iterable[RangeRow]) -> None:
    for row in ranges:
        standing = connection.execute(
            "SELECT at, until FROM owed WHERE subscription_id = ? AND job_id = ? AND seq = ?", tuple(row.key)
        ).fetchone()
        at, until = orjson.loads(standing[0]), _decode_end(standing[1])
        goes_back = len(at) != len(row.at) or any(new < old for new, old in zip(row.at, at, strict=True))
        if goes_back or until not in {None, row.until}:
            message = (
                f"owed range {row.subscription_id} {row.job_id or '-'} {row.seq} stands at {at} until {until} and would be at"
                f" {list(row.at)} until {row.until}; a range never goes back, and its end never changes"
            )
            raise LedgerInvariantError(message)
    raise LedgerInvariantError("a flush names the same owed range twice")


def delete_ranges(connection: sqlite3.Connection, keys: Iterable[RangeKey]) -> None:
    """Delete owed ranges."""
    connection.executemany("DELETE FROM owed WHERE subscription_id = ? AND job_id = ? AND seq = ?", keys)


def write_jobs(connection: sqlite3.Connection, jobs: Sequence[JobRow]) -> None:
    """Insert or replace the progress of jobs."""
    connection.executemany(
        "INSERT OR REPLACE INTO jobs VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [(*row[:3], _encode(row.after), _encode_end(row.through), *row[5:]) for row in jobs],
    )


def delete_jobs(connection: sqlite3.Connection, keys: Iterable[JobKey]) -> None:
    """Delete jobs."""
    connection.executemany("DELETE FROM jobs WHERE subscription_id = ? AND job_id = ?", keys)


def write_ended(connection: sqlite3.Connection, ended: Iterable[EndedRow]) -> None:
    """Insert ended ranges: each joins the one that ends where it begins, and the one that begins where it ends."""
    for row in ended:
        standing = _ended_of(connection, row)
        if any(_holds(other, row) for other in standing):
            continue
        joined = row
        for other in standing:
            if other.through == row.after or other.after == row.through:
                _delete_ended(connection, other)
                first, last = (other, joined) if other.through == row.after else (joined, other)
                about, time_ms = first.about + last.about, max(first.time_ms, last.time_ms)
                joined = row._replace(after=first.after, through=last.through, about=about, time_ms=time_ms)
        _insert_ended(connection, joined)


def _insert_ended(connection: sqlite3.Connection, row: EndedRow) -> None:
    values = (*row[:3], _encode(row.after), _encode(row.through), *row[5:])
    connection.execute("INSERT OR REPLACE INTO ended VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)


def _ended_of(connection: sqlite3.Connection, row: EndedRow) -> list[EndedRow]:
    found = connection.execute("SELECT * FROM ended WHERE subscription_id = ? AND job_id = ? AND reason = ?", row[:3]).fetchall()
    return list(starmap(_ended_row, found))


def _delete_ended(connection: sqlite3.Connection, row: EndedRow) -> None:
    connection.execute(
        "DELETE FROM ended WHERE subscription_id = ? AND job_id = ? AND reason = ? AND after = ?", (*row[:3], _encode(row.after))
    )


def _holds(outer: EndedRow, inner: EndedRow) -> bool:
    """Return whether all events of a range lie in another one."""
    begins = all(one <= other for one, other in zip(outer.after, inner.after, strict=True))
    return begins and all(one >= other for one, other in zip(outer.through, inner.through, strict=True))


def drop_ended(connection: sqlite3.Connection, before_ms: int) -> int | None:
    """Drop at most 2000 ended ranges and events set aside from before a time; return how many, None if there were none."""
    dropped = connection.execute(
        "DELETE FROM ended WHERE (subscription_id, job_id, reason, after) IN"
        " (SELECT subscription_id, job_id, reason, after FROM ended WHERE time_ms < ? LIMIT ?)",
        (before_ms, _DROPPED_MAX),
    ).rowcount
    dropped += connection.execute(
        "DELETE FROM set_aside WHERE (group_id, shard, position) IN"
        " (SELECT group_id, shard, position FROM set_aside WHERE time_ms < ? LIMIT ?)",
        (before_ms, _DROPPED_MAX),
    ).rowcount
    return dropped or None


def repair_ranges(connection: sqlite3.Connection, slots: Collection[int], repaired: Mapping[int, tuple[int, int]]) -> None:
    """Fit the ranges of a group's slots to its repaired cursor.

    `repaired` has by shard the position where routing resumes, and the last one that the log still holds. A range with a place that the
    log does not hold begins at the cursor, and no range goes beyond the cursor: routing hands over what is above. What a job or an ended
    range had above the last position held is gone.
    """
    for row in ranges(connection):
        if slot_of(row.subscription_id) not in slots:
            continue
        at, until = list(row.at), None if row.until is None else list(row.until)
        for shard, (cursor, held) in repaired.items():
            at[shard] = cursor if at[shard] > held else min(at[shard], cursor)
            if until is not None and (until[shard] > held or until[shard] > cursor):
                until[shard] = max(at[shard], min(until[shard], held, cursor)) if row.job_id else cursor
        connection.execute(
            "UPDATE owed SET at = ?, until = ? WHERE subscription_id = ? AND job_id = ? AND seq = ?",
            (_encode(tuple(at)), None if until is None else _encode(tuple(until)), *row.key),
        )
    for ended in starmap(_ended_row, connection.execute("SELECT * FROM ended").fetchall()):
        if slot_of(ended.subscription_id) not in slots:
            continue
        through = [min(position, repaired[shard][1]) if shard in repaired else position for shard, position in enumerate(ended.through)]
        if through == list(ended.through):
            continue
        _delete_ended(connection, ended)
        through = [max(position, after) for position, after in zip(through, ended.after, strict=True)]
        if tuple(through) != ended.after:
            _insert_ended(connection, ended._replace(through=tuple(through)))


def repair_set_aside(connection: sqlite3.Connection, held_through: Mapping[int, int]) -> None:
    """Forget the events set aside that the log no longer holds: by shard, the last position that it holds."""
    connection.executemany("DELETE FROM set_aside WHERE shard = ? AND position > ?", held_through.items())


def write_set_aside(connection: sqlite3.Connection, rows: Sequence[SetAsideRow]) -> None:
    """Insert events set aside; one that stands keeps its first reason."""
    connection.executemany("INSERT OR IGNORE INTO set_aside VALUES (?, ?, ?, ?, ?, ?)", rows)


def ranges(connection: sqlite3.Connection) -> list[RangeRow]:
    """See `Ledger.ranges`."""
    rows = connection.execute("SELECT * FROM owed ORDER BY subscription_id, job_id, seq")
    return [RangeRow(lane, job, seq, _decode(at), _decode_end(until), *rest) for lane, job, seq, at, until, *rest in rows]


def lowest_owed(connection: sqlite3.Connection) -> Positions | None:
    """See `Ledger.lowest_owed`."""
    rows = connection.execute("SELECT min(place.value) FROM owed, json_each(owed.at) AS place GROUP BY place.key ORDER BY place.key")
    return tuple(position for (position,) in rows) or None


def jobs(connection: sqlite3.Connection) -> list[JobRow]:
    """See `Ledger.jobs`."""
    rows = connection.execute("SELECT * FROM jobs ORDER BY subscription_id, job_id")
    return [JobRow(lane, job, state, _decode(after), _decode_end(through), *counts) for lane, job, state, after, through, *counts in rows]


def ended_of(connection: sqlite3.Connection, subscription_id: str) -> list[EndedRow]:
    """See `Ledger.ended`."""
    rows = connection.execute("SELECT * FROM ended WHERE subscription_id = ?", (subscription_id,))
    return sorted(starmap(_ended_row, rows), key=lambda row: (row.job_id, row.after))


def ended_at(connection: sqlite3.Connection, scope: Scope, shard: int, position: int, limit: int) -> list[EndedRow]:
    """See `Ledger.ended_at`."""
    shard_path = f"$[{shard}]"
    source, values = _ended_in(scope, "")
    rows = connection.execute(
        f"SELECT * FROM {source} WHERE json_extract(after, ?) < ? AND json_extract(through, ?) >= ? LIMIT ?",  # noqa: S608 - constants
        (*values, shard_path, position, shard_path, position, limit),
    )
    return sorted(starmap(_ended_row, rows))


def ended_totals(connection: sqlite3.Connection, scope: Scope, subscription_id: str) -> dict[State, int]:
    """See `Ledger.ended_totals`."""
    source, values = _ended_in(scope, subscription_id)
    rows = connection.execute(f"SELECT reason, sum(about) FROM {source} GROUP BY reason", values)  # noqa: S608 - constants
    return {State(reason): about for reason, about in rows}


def _ended_in(scope: Scope, subscription_id: str) -> tuple[str, list[object]]:
    """Return the SQL for a bounded number of the ended ranges of a scope and a subscription (empty: of all), and its values."""
    conditions, values = ["true"], list[object]()
    if subscription_id:
        conditions.append("subscription_id = ?")
        values.append(subscription_id)
    if not isinstance(scope, Everyone):
        # A subscription has few ended ranges, which its key finds; a consumer may have many.
        conditions.append("+consumer_id = ?" if subscription_id else "consumer_id = ?")
        values.append(scope.consumer_id)
    return f"(SELECT * FROM ended WHERE {' AND '.join(conditions)} LIMIT ?)", [*values, _EXAMINED_MAX]  # noqa: S608 - constants


def set_aside(connection: sqlite3.Connection, limit: int) -> list[SetAsideRow]:
    """See `Ledger.set_aside`."""
    return list(starmap(SetAsideRow, connection.execute("SELECT * FROM set_aside ORDER BY time_ms DESC LIMIT ?", (limit,))))


def _ended_row(
    subscription_id: str, job_id: str, reason: int, after: str, through: str, about: int, time_ms: int, consumer_id: str
) -> EndedRow:
    return EndedRow(subscription_id, job_id, State(reason), _decode(after), _decode(through), about, time_ms, consumer_id)


def _encode(place: Positions) -> str:
    return orjson.dumps(place).decode()


def _encode_end(place: Positions | None) -> str | None:
    return None if place is None else _encode(place)


def _decode(place: str) -> Positions:
    return tuple(orjson.loads(place))


def _decode_end(place: str | None) -> Positions | None:
    return None if place is None else _decode(place)
