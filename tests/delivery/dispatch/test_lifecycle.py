"""Lifecycle: which transitions a delivery may make, in every phase, with and without a row."""

import ast
import inspect
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from services import delivery as delivery_service
from services.delivery.dispatch import lifecycle
from services.delivery.dispatch.lifecycle import TABLE, Transition
from services.delivery.model import Delivery, Event, Phase, State
from services.eventlog.record import Record

NOW, NOW_MS, DUE_MS = 12.5, 1_700_000_000_000, 1_700_000_005_000
STEPS: dict[Transition, Callable[[Delivery], object]] = {
    Transition.QUEUE: lifecycle.queue,
    Transition.START: lambda delivery: lifecycle.start(delivery, NOW),
    Transition.SUCCEED: lambda delivery: lifecycle.end(delivery, State.DELIVERED, NOW_MS),
    Transition.RETRY: lambda delivery: lifecycle.retry(delivery, DUE_MS, 7),
    Transition.WITHDRAW: lifecycle.withdraw,
    Transition.EXHAUST: lambda delivery: lifecycle.end(delivery, State.EXHAUSTED, NOW_MS),
    Transition.CANCEL: lambda delivery: lifecycle.end(delivery, State.CANCELLED, NOW_MS),
    Transition.SPILL: lifecycle.spill,
    Transition.PUT_BACK: lifecycle.put_back,
    Transition.LET_GO: lifecycle.let_go,
    Transition.RECORD: lambda delivery: lifecycle.record([delivery]),
    Transition.RELEASE: lifecycle.release,
}
END = {Transition.SUCCEED: State.DELIVERED, Transition.EXHAUST: State.EXHAUSTED, Transition.CANCEL: State.CANCELLED}
# The shortest way into each phase.
WAYS: dict[Phase, tuple[Transition, ...]] = {
    Phase.HELD: (),
    Phase.QUEUED: (Transition.QUEUE,),
    Phase.IN_FLIGHT: (Transition.QUEUE, Transition.START),
    Phase.RETRYING: (Transition.QUEUE, Transition.START, Transition.RETRY),
    Phase.WITHDRAWN: (Transition.QUEUE, Transition.START, Transition.WITHDRAW),
    Phase.SPILLED: (Transition.SPILL,),
    Phase.ENDED: (Transition.QUEUE, Transition.START, Transition.SUCCEED),
    Phase.RELEASED: (Transition.SPILL, Transition.RECORD, Transition.RELEASE),
}
# Everything that may happen, once more and in the order of a delivery's life: a change of the table has to be made here too.
LEGAL = """
    HELD QUEUE QUEUED, HELD SPILL SPILLED, HELD EXHAUST ENDED, HELD CANCEL ENDED, HELD RECORD HELD,
    QUEUED START IN_FLIGHT, QUEUED SPILL SPILLED, QUEUED PUT_BACK RELEASED, QUEUED LET_GO RELEASED, QUEUED EXHAUST ENDED,
    QUEUED CANCEL ENDED, QUEUED RECORD QUEUED,
    IN_FLIGHT SUCCEED ENDED, IN_FLIGHT RETRY RETRYING, IN_FLIGHT WITHDRAW WITHDRAWN, IN_FLIGHT EXHAUST ENDED, IN_FLIGHT CANCEL ENDED,
    IN_FLIGHT RECORD IN_FLIGHT,
    RETRYING CANCEL ENDED, RETRYING RECORD RETRYING, RETRYING RELEASE RELEASED,
    WITHDRAWN CANCEL ENDED, WITHDRAWN RECORD WITHDRAWN, WITHDRAWN RELEASE RELEASED,
    SPILLED CANCEL ENDED, SPILLED RECORD SPILLED, SPILLED RELEASE RELEASED,
    ENDED RECORD ENDED, ENDED RELEASE RELEASED
"""
AFTER = {(Phase[phase], Transition[step]): Phase[after] for phase, step, after in (each.split() for each in LEGAL.split(","))}
# Whether the ledger must have the delivery's row already, for the transitions that depend on it.
NEEDS_ROW = {Transition.SPILL: False, Transition.LET_GO: False, Transition.PUT_BACK: True, Transition.RELEASE: True}
PAIRS = list(itertools.product(Phase, [False, True], Transition))
# The fields that only the lifecycle writes. Some names are also those of fields of other classes, which these files write.
FIELDS = frozenset({"phase", "state", "due_ms", "finished_ms", "recorded", "sent_at", "event"})
OTHER_FIELDS = {("request/oauth2_client.py", "shared.state")}


def delivery_in(phase: Phase, *, recorded: bool) -> Delivery:
    """Return a delivery that has come into a phase by the shortest way; a RELEASED delivery is always recorded."""
    record = Record(0, 3, 7, f"evt_{7:032x}", "order.created", "/shop", "", 0, b"event")
    made = Delivery(b"d" * 16, record.event_id, 0, 3, 7, record.type, 0, f"sub_{1:032x}", f"con_{1:032x}", 1, Event(record))
    for step in WAYS[phase]:
        STEPS[step](made)
    if recorded and not made.recorded:
        lifecycle.record([made])
    assert (made.phase, made.recorded) == (phase, recorded or phase is Phase.RELEASED)
    return made


def seen(delivery: Delivery) -> tuple[object, ...]:
    """Return everything that a transition may change."""
    return tuple(getattr(delivery, name) for name in sorted(FIELDS))


@pytest.mark.parametrize(("phase", "recorded", "step"), PAIRS, ids=[f"{p.name}-{r}-{t.name}" for p, r, t in PAIRS])
def test_every_transition_in_every_phase(phase: Phase, step: Transition, *, recorded: bool) -> None:
    """A legal transition leads into the next phase; any other raises an error that names both, and changes nothing."""
    delivery = delivery_in(phase, recorded=recorded)
    before, has_row = seen(delivery), delivery.recorded
    after = AFTER.get((phase, step))
    if after is None or NEEDS_ROW.get(step, has_row) != has_row:
        with pytest.raises(AssertionError, match=rf"no transition {step.name} in the phase {phase.name}\b"):
            STEPS[step](delivery)
        assert seen(delivery) == before
        return

    STEPS[step](delivery)

    assert delivery.phase is after
    assert delivery.recorded == (has_row or step is Transition.RECORD)
    assert delivery.state == END.get(step, before[sorted(FIELDS).index("state")])


def test_only_a_retry_is_brought_forward_and_never_put_off() -> None:
    waiting = delivery_in(Phase.RETRYING, recorded=True)
    for due_ms, expected_ms in ((DUE_MS + 1, DUE_MS), (NOW_MS, NOW_MS)):
        lifecycle.bring_forward(waiting, due_ms)
        assert waiting.due_ms == expected_ms
    with pytest.raises(AssertionError, match="QUEUED"):
        lifecycle.bring_forward(delivery_in(Phase.QUEUED, recorded=False), NOW_MS)


def test_the_table_has_a_row_for_every_transition() -> None:
    assert set(TABLE) == set(STEPS) == set(Transition)
    assert {(phase, step): after for step, row in TABLE.items() for phase, after in row.items()} == AFTER


def test_every_phase_can_be_left_until_the_delivery_is_out_of_memory() -> None:
    """From each phase some way leads to RELEASED, where nothing happens any more; every other phase may be recorded."""
    ends = {Phase.RELEASED}
    for _ in Phase:
        ends |= {phase for (phase, _), after in AFTER.items() if after in ends}
    assert ends == set(Phase)
    assert not [pair for pair in AFTER if pair[0] is Phase.RELEASED]


def test_an_attempt_counts_as_unrecorded_until_its_end_is_recorded_or_it_is_withdrawn() -> None:
    delivery = delivery_in(Phase.QUEUED, recorded=False)
    lifecycle.start(delivery, NOW)
    lifecycle.retry(delivery, DUE_MS, 7)
    assert (delivery.sent_at, delivery.due_ms, delivery.state) == (NOW, DUE_MS, State.PENDING)
    withdrawn = delivery_in(Phase.IN_FLIGHT, recorded=False)
    lifecycle.withdraw(withdrawn)
    assert (withdrawn.sent_at, withdrawn.due_ms) == (None, 0)


@pytest.mark.parametrize("state", [State.DELIVERED, State.EXHAUSTED, State.CANCELLED])
def test_an_ended_delivery_has_its_time_and_no_event(state: State) -> None:
    delivery = delivery_in(Phase.IN_FLIGHT, recorded=False)
    lifecycle.end(delivery, state, NOW_MS)
    assert (delivery.state, delivery.finished_ms, delivery.event) == (state, NOW_MS, None)


def test_a_released_delivery_tells_the_phase_that_it_left() -> None:
    for phase in lifecycle.SETTLED:
        assert lifecycle.release(delivery_in(phase, recorded=True)) is phase


# Nobody else writes


def assigned(tree: ast.AST) -> Iterator[ast.Attribute]:
    """Yield every attribute that a module assigns or deletes, wherever in a target it stands, and every call of `setattr` by name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store | ast.Del):
            yield node
        elif isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in {"setattr", "__setattr__", "delattr"}:
            name = node.args[-2 if "set" in ast.unparse(node.func) else -1]
            yield ast.Attribute(node.args[0], ast.literal_eval(name) if isinstance(name, ast.Constant) else "state")


def writes(folder: Path) -> set[tuple[str, str]]:
    """Return the file and target of every write to a field with a name of the lifecycle's, outside the lifecycle."""
    found = set()
    for path in folder.rglob("*.py"):
        if path == Path(inspect.getfile(lifecycle)):
            continue
        for target in assigned(ast.parse(path.read_text())):
            if target.attr in FIELDS and not (isinstance(target.value, ast.Name) and target.value.id == "self"):
                found.add((path.relative_to(folder).as_posix(), ast.unparse(target)))
    return found


def test_no_other_file_writes_the_fields_of_a_delivery() -> None:
    assert writes(Path(inspect.getfile(delivery_service)).parent) == OTHER_FIELDS


@pytest.mark.parametrize(
    "line",
    [
        "delivery.phase = 1",
        "delivery.due_ms += 1",
        "a, chunk.deliveries[0].state = 1, 2",
        "del delivery.event",
        "for delivery.sent_at in x: pass",
        "setattr(delivery, 'recorded', True)",
        "object.__setattr__(delivery, 'finished_ms', 1)",
        "setattr(delivery, name, True)",
    ],
)
def test_a_write_elsewhere_is_found(tmp_path: Path, line: str) -> None:
    (tmp_path / "other.py").write_text(line)
    assert len(writes(tmp_path)) == 1


def test_a_reader_and_another_class_s_own_field_are_no_writes(tmp_path: Path) -> None:
    (tmp_path / "other.py").write_text("class A:\n    def b(self, delivery):\n        self.phase = delivery.phase == delivery.state")
    assert writes(tmp_path) == set()
