"""Headway: how far routing may be ahead of what has ended.

route → lane → attempt → schedule → [headway] → recorder

While it is this machine that sending waits for, routing stays just so far ahead of it that each delivery is written once: a
backlog then waits in the log, where it stands already, and not a second time in the ledger. While it is endpoints, routing goes
on without them, up to its bound, so that none keeps the others waiting.

Law: pure; time arrives as an argument.
"""

from dataclasses import dataclass, field

# So many that twice what may be under way at once is there to be sent.
FEW = 500
MOST = 4000
LOOK_S = 0.05
_AHEAD_S = 0.25
_BUSY = 0.5


@dataclass(slots=True)
class Headway:
    """The bound of what is routed and not recorded, in deliveries: `few` at first and while the machine is busy, never beyond `most`."""

    few: int = FEW
    most: int = MOST
    limit: int = field(init=False)
    _ended: int = 0
    _since: float = 0.0
    _busy_s: float = 0.0

    def __post_init__(self) -> None:
        self.limit = self.few

    def ended(self) -> None:
        """Note that a delivery has ended after an attempt."""
        self._ended += 1

    def wait_begins(self, now: float, busy_s: float) -> None:
        """Begin to measure, since the bound is reached; `busy_s` is for how long the event loop's thread has been busy."""
        self._ended, self._since, self._busy_s = 0, now, busy_s

    def look(self, now: float, busy_s: float) -> None:
        """Set the bound by what has happened since the last look, once that is long enough ago."""
        elapsed_s = now - self._since
        if elapsed_s < LOOK_S:
            return
        is_busy = busy_s - self._busy_s >= _BUSY * elapsed_s
        self.limit = min(self.most, max(self.few, int(self._ended / elapsed_s * _AHEAD_S))) if is_busy else self.most
        self.wait_begins(now, busy_s)
