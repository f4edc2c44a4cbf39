"""Headway: how far routing may be ahead of what has ended.

route → lane → attempt → schedule → [headway] → recorder

While deliveries end at a good pace, routing stays just so far ahead of them that each is written once: a backlog then waits
in the log, where it stands already, and not a second time in the ledger. Where they do not, it is their endpoints that are
slow, and routing goes on without them, up to its bound.

Law: pure; time arrives as an argument.
"""

from dataclasses import dataclass

FEW = 1000
MOST = 4000
AHEAD_S = 0.2
GOOD_PACE_PER_S = 2000.0
_LOOK_S = 0.05


@dataclass(slots=True)
class Headway:
    """The bound of what is routed and not recorded, in deliveries."""

    limit: int = FEW
    _ended: int = 0
    _since: float = 0.0

    def ended(self) -> None:
        """Note that a delivery has ended after an attempt."""
        self._ended += 1

    def wait_begins(self, now: float) -> None:
        """Begin to measure: the bound is reached."""
        self._ended, self._since = 0, now

    def look(self, now: float, routed: int) -> None:
        """Set the bound by the pace since the last look, once that is long enough ago; anew once little is left."""
        if routed < FEW:
            self.limit = FEW
        elif now >= self._since + _LOOK_S:
            pace = self._ended / (now - self._since)
            self.limit = MOST if pace < GOOD_PACE_PER_S else min(MOST, max(FEW, int(pace * AHEAD_S)))
            self._ended, self._since = 0, now
