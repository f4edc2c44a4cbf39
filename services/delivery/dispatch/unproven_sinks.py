"""Unproven sinks: space out the attempts of one consumer to sinks that have not taken any.

lane → attempt_scheduler → [unproven_sinks] → sender

A sink that refuses every connection fails at once, so thousands of dead sinks could take all of this machine's time with attempts that
are never slow. Attempts to a consumer's unproven sinks therefore keep a distance in time: each failure doubles it, each success halves it.
Sinks that work are soon proven, and keep no distance.

Law 1: pure; time (seconds of a monotonic clock) arrives as an argument.
Law 2: lanes that must wait take turns in the order of their coming. Those that were never tried come before those that have failed, but
every fourth turn is for one that has failed. So each lane's turn comes, whatever others want.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from services.delivery.dispatch.lane import Lane

DISTANCE_FIRST_S, DISTANCE_MAX_S = 0.00025, 0.03
_NONE_BELOW_S = 0.0001
_FAILED_EVERY = 4
_READ_WAIT_MAX_S = 10.0
_PARKED_ENOUGH = 64
FAILURES_MAX = 3
"""A sink that has worked is unproven again after so many failures in a row."""


@dataclass(slots=True)
class UnprovenSinks:
    """The attempts of one consumer to its unproven sinks."""

    distance_s: float = DISTANCE_FIRST_S
    """How long after one attempt the next one may start."""
    next_at: float = 0.0
    """When the next attempt may start."""
    reads_at: float = 0.0
    """When the next page of the log may be read for one of them."""
    untried: "deque[Lane]" = field(default_factory=deque)  # bounded: each lane of the consumer is once in `untried` or `failed`
    """The parked lanes whose sinks were never tried."""
    failed: "deque[Lane]" = field(default_factory=deque)  # bounded: with `untried`
    """The parked lanes whose sinks have failed."""
    turns: int = 0
    """How many lanes have had their turn."""

    @property
    def is_waited_for(self) -> bool:
        """Whether any lane waits for its turn."""
        return bool(self.untried or self.failed)

    def park(self, lane: "Lane") -> None:
        """Let a lane wait for its turn, behind the others; in front of them if it has had its turn and could not use it."""
        lane.is_parked = True
        parked = self.failed if lane.failures else self.untried
        (parked.appendleft if lane.has_try_turn else parked.append)(lane)

    def unpark(self) -> "Lane":
        """Remove and return the lane whose turn it is; at least one must wait."""
        self.turns += 1
        is_for_failed = self.failed and (not self.untried or self.turns % _FAILED_EVERY == 0)
        lane = (self.failed if is_for_failed else self.untried).popleft()
        lane.is_parked, lane.has_try_turn = False, True
        return lane

    def wait_s(self, now: float) -> float:
        """Return after how many seconds an attempt may start."""
        return max(0.0, self.next_at - now)

    def wants_page(self, lane: "Lane") -> bool:
        """Return whether a lane may read a page: few of its kind are parked with an event.

        Lanes that have failed and lanes that were never tried are two kinds, since thousands of retries may wait at any time.
        """
        return len(self.failed if lane.failures else self.untried) < _PARKED_ENOUGH

    def take_read_turn(self, now: float) -> float:
        """Take the next turn for reading a page; return after how many seconds it comes. Pages keep the distance of attempts.

        A turn comes within 10 s. By then the distance may have become longer or shorter: the caller looks at `wants_page` again.
        """
        self.reads_at = min(max(now, self.reads_at), now + _READ_WAIT_MAX_S)
        wait_s = self.reads_at - now
        self.reads_at += self.distance_s
        return wait_s

    def started(self, now: float) -> None:
        """Note that an attempt starts."""
        self.next_at = max(now, self.next_at) + self.distance_s

    def ended(self, *, succeeded: bool) -> None:
        """Note that an attempt has ended."""
        if not succeeded:
            self.distance_s = min(DISTANCE_MAX_S, max(DISTANCE_FIRST_S, 2 * self.distance_s))
        elif self.distance_s:
            self.distance_s = self.distance_s / 2 if self.distance_s >= 2 * _NONE_BELOW_S else 0.0
