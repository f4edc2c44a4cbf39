"""Backpressure: how many deliveries may be routed before their attempts have ended and are recorded.

event log → log_follower → [backpressure] ← recorder ← dispatcher

If sending waits for this machine, routing stays only so far ahead of sending that each delivery is written once. A backlog then
waits in the log, which holds it already, and is not written a second time into the ledger. If sending waits for sinks, routing
goes on up to its bound, so that no sink keeps the others waiting.

Law: pure; time arrives as an argument.
"""

from dataclasses import dataclass, field

# About twice the default of attempts in flight at once, so that there is always a delivery to send.
FEW = 500
MOST = 4000
LOOK_S = 0.05
_AHEAD_S = 0.25
_BUSY = 0.5


@dataclass(slots=True)
class Headway:
    """The bound of what is routed and not recorded, in deliveries.

    The bound is `few` at first and `most` while the machine is not busy. While the machine is busy, the bound is what ends in
    `_AHEAD_S`, between `few` and `most`.
    """

    few: int = FEW
    most: int = MOST
    limit: int = field(init=False)
    _ended: int = 0
    _since: float = 0.0
    _busy_s: float = 0.0

    def __post_init__(self) -> None:
        self.limit = self.few

    def ended(self) -> None:
        """Note that a delivery of a chunk that is not flushed yet is settled."""
        self._ended += 1

    def wait_begins(self, now: float, busy_s: float) -> None:
        """Begin to measure, because the bound is reached. `busy_s` is how long the event loop's thread has been busy in all."""
        self._ended, self._since, self._busy_s = 0, now, busy_s

    def look(self, now: float, busy_s: float) -> None:
        """Set the bound by what has happened since the last look; do nothing if that was less than `LOOK_S` ago."""
        elapsed_s = now - self._since
        if elapsed_s < LOOK_S:
            return
        is_busy = busy_s - self._busy_s >= _BUSY * elapsed_s
        self.limit = min(self.most, max(self.few, int(self._ended / elapsed_s * _AHEAD_S))) if is_busy else self.most
        self.wait_begins(now, busy_s)
