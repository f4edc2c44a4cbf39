"""Lifecycle: the phases of a delivery in memory, and every transition between them.

log_follower, lane_refill → dispatcher → [lifecycle] → recorder

Law 1: `TABLE` lists all transitions. A transition that is not in it raises `AssertionError`, which names the transition and the phase. So
does SPILL or LET_GO of a delivery that has a row, and PUT_BACK or RELEASE of a delivery that has none.
Law 2: only this file changes a delivery's phase, state, times, event, and whether it is recorded.
Law 3: pure; times arrive as arguments. Counters of lanes and chunks belong to those who keep them.
"""

import enum
from collections.abc import Iterable
from typing import Final

from services.delivery.model import Delivery, Phase, State


class Transition(enum.Enum):
    """What can happen to a delivery."""

    QUEUE = "joins its lane's queue"
    START = "gets an attempt"
    SUCCEED = "is delivered"
    RETRY = "waits for a retry"
    WITHDRAW = "has its request withdrawn"
    EXHAUST = "is exhausted"
    CANCEL = "is cancelled because its subscription is deleted or disabled"
    SPILL = "is spilled to a row that is not written yet"
    PUT_BACK = "is spilled to the row that it has, unchanged"
    LET_GO = "is left to the log, in a range that its lane owes"
    RECORD = "is written to the ledger"
    RELEASE = "leaves memory after its flush"


class _Row(dict[Phase, Phase]):
    """One transition's row of the table: the phase that follows each phase in which it may happen."""

    __slots__ = ("transition",)

    def __init__(self, transition: Transition, after: dict[Phase, Phase]) -> None:
        super().__init__(after)
        self.transition = transition

    def __missing__(self, phase: Phase) -> Phase:
        """Raise `AssertionError`: the transition cannot happen in this phase."""
        message = f"no transition {self.transition.name} in the phase {phase.name}: no delivery {self.transition.value} then"
        raise AssertionError(message)


WAITING: Final = frozenset({Phase.RETRYING, Phase.WITHDRAWN, Phase.SPILLED})
"""The phases of a delivery that is unfinished and waits for its flush, to go on later from its row."""
SETTLED: Final = WAITING | {Phase.ENDED}
"""The phases of a delivery that waits for its flush, after which it leaves memory."""

_HELD, _QUEUED, _IN_FLIGHT, _RETRYING, _WITHDRAWN, _SPILLED, _ENDED, _RELEASED = Phase
TABLE: Final = {
    transition: _Row(transition, after)
    for transition, after in {
        Transition.QUEUE: {_HELD: _QUEUED},
        Transition.START: {_QUEUED: _IN_FLIGHT},
        Transition.SUCCEED: {_IN_FLIGHT: _ENDED},
        Transition.RETRY: {_IN_FLIGHT: _RETRYING},
        Transition.WITHDRAW: {_IN_FLIGHT: _WITHDRAWN},
        Transition.EXHAUST: dict.fromkeys((_HELD, _QUEUED, _IN_FLIGHT), _ENDED),
        Transition.CANCEL: dict.fromkeys((_HELD, _QUEUED, _IN_FLIGHT, _RETRYING, _WITHDRAWN, _SPILLED), _ENDED),
        Transition.SPILL: dict.fromkeys((_HELD, _QUEUED), _SPILLED),
        Transition.PUT_BACK: {_QUEUED: _RELEASED},
        Transition.LET_GO: {_QUEUED: _RELEASED},
        Transition.RECORD: {phase: phase for phase in Phase if phase is not _RELEASED},
        Transition.RELEASE: dict.fromkeys(SETTLED, _RELEASED),
    }.items()
}
"""The phase that follows, by transition and present phase."""

# One look-up for each transition: these run for every delivery.
_QUEUE, _START, _RETRY, _WITHDRAW = (TABLE[each] for each in (Transition.QUEUE, Transition.START, Transition.RETRY, Transition.WITHDRAW))
_SPILL, _PUT_BACK, _LET_GO, _RECORD, _RELEASE = (
    TABLE[each] for each in (Transition.SPILL, Transition.PUT_BACK, Transition.LET_GO, Transition.RECORD, Transition.RELEASE)
)
_END = {
    State.DELIVERED: TABLE[Transition.SUCCEED],
    State.EXHAUSTED: TABLE[Transition.EXHAUST],
    State.CANCELLED: TABLE[Transition.CANCEL],
}


def queue(delivery: Delivery) -> None:
    """Note that a held delivery enters its lane's queue."""
    delivery.phase = _QUEUE[delivery.phase]


def start(delivery: Delivery, now: float) -> None:
    """Note that an attempt starts at `now`, by the monotonic clock."""
    delivery.phase = _START[delivery.phase]
    delivery.sent_at = now


def withdraw(delivery: Delivery) -> None:
    """Note that the attempt was withdrawn before it began: it was no attempt."""
    delivery.phase = _WITHDRAW[delivery.phase]
    delivery.sent_at = None


def retry(delivery: Delivery, due_ms: int, failed_sink: int) -> None:
    """Note that the attempt has failed at the sink with this fingerprint, and that the next one is due at `due_ms`, by the due clock."""
    delivery.phase = _RETRY[delivery.phase]
    delivery.due_ms, delivery.failed_sink = due_ms, failed_sink


def bring_forward(delivery: Delivery, due_ms: int) -> None:
    """Let the next attempt of a delivery that waits for a retry be due at `due_ms` at the latest."""
    assert delivery.phase is _RETRYING, delivery.phase.name  # noqa: S101 - only a retry waits for its time
    delivery.due_ms = min(delivery.due_ms, due_ms)


def end(delivery: Delivery, state: State, now_ms: int) -> None:
    """Bring a delivery to its final state, and drop its event: from now on only its row is needed."""
    delivery.phase = _END[state][delivery.phase]
    delivery.state = state
    delivery.finished_ms = now_ms
    delivery.event = None


def spill(delivery: Delivery) -> None:
    """Let a delivery without a row wait as a row, which the next flush writes."""
    if delivery.recorded:
        raise _wrong_row(Transition.SPILL, delivery)
    delivery.phase = _SPILL[delivery.phase]


def put_back(delivery: Delivery) -> None:
    """Leave a queued delivery to its row, which is still right: nothing has happened since it was read or written."""
    if not delivery.recorded:
        raise _wrong_row(Transition.PUT_BACK, delivery)
    delivery.phase = _PUT_BACK[delivery.phase]


def let_go(delivery: Delivery) -> None:
    """Leave a queued delivery without a row to the log: its lane's owed range reads its event again."""
    if delivery.recorded:
        raise _wrong_row(Transition.LET_GO, delivery)
    delivery.phase = _LET_GO[delivery.phase]
    delivery.event = None


def record(deliveries: Iterable[Delivery]) -> None:
    """Note that a flush has written these deliveries."""
    for delivery in deliveries:
        delivery.phase = _RECORD[delivery.phase]
        delivery.recorded = True


def release(delivery: Delivery) -> Phase:
    """Note that a settled delivery leaves memory, because its flush has written it; return the phase that it leaves."""
    if not delivery.recorded:
        raise _wrong_row(Transition.RELEASE, delivery)
    phase = delivery.phase
    delivery.phase = _RELEASE[phase]
    return phase


def _wrong_row(transition: Transition, delivery: Delivery) -> AssertionError:
    has = "has a row" if delivery.recorded else "has no row"
    return AssertionError(f"no transition {transition.name} in the phase {delivery.phase.name} of a delivery that {has}")
