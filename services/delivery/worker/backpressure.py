"""Backpressure: how many deliveries may be routed before their attempts have ended and are recorded.

event log → log_follower → [backpressure] ← recorder ← dispatcher

If sending waits for this machine, routing stays only so far ahead of sending that each delivery is written once. A backlog then
waits in the log, which holds it already, and is not written a second time into the ledger. If sending waits for sinks, routing
goes on up to its bound, so that no sink keeps the others waiting.

Law: pure; time arrives as an argument.
"""

from dataclasses import dataclass, field

# About twice the default of attempts in flight at once, so that there is always a delivery to send.
LIMIT_MIN = 500
LIMIT_MAX = 4000
MEASURE_S = 0.05
_AHEAD_S = 0.25
_BUSY_SHARE = 0.5


@dataclass(slots=True)
class Backpressure:
    """The bound of what is routed and not recorded, in deliveries.

    The bound is `limit_min` at first and `limit_max` while the machine is not busy. While the machine is busy, the bound is what ends in
    `_AHEAD_S`, between `limit_min` and `limit_max`.
    """

    limit_min: int = LIMIT_MIN
    limit_max: int = LIMIT_MAX
    limit: int = field(init=False)
    _settled: int = 0
    _since: float = 0.0
    _busy_s: float = 0.0

    def __post_init__(self) -> None:
        self.limit = self.limit_min

    def note_settled(self) -> None:
        """Note that a delivery of a chunk that is not flushed yet is settled."""
        self._settled += 1

    def begin_measuring(self, now: float, busy_s: float) -> None:
        """Begin to measure, because the bound is reached. `busy_s` is how long the event loop's thread has been busy in all."""
        self._settled, self._since, self._busy_s = 0, now, busy_s

    def adjust(self, now: float, busy_s: float) -> None:
        """Set the bound by what has happened since the last measurement; do nothing if that was less than `MEASURE_S` ago."""
        elapsed_s = now - self._since
        if elapsed_s < MEASURE_S:
            return
        is_busy = busy_s - self._busy_s >= _BUSY_SHARE * elapsed_s
        self.limit = min(self.limit_max, max(self.limit_min, int(self._settled / elapsed_s * _AHEAD_S))) if is_busy else self.limit_max
        self.begin_measuring(now, busy_s)
