"""Concurrency: every task has an owner that ends it, and every queue has a bound.

A task belongs to an `asyncio.TaskGroup`. Any other task says behind `# owned:`, on its line or the line above, who ends it. A queue without
a maximum says behind `# bounded:` what bounds it.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = [
    path
    for folder in ("services", "gateway", "protos/src/hooktide")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if not path.name.endswith(("_pb2.py", "_pb2_grpc.py"))
]
QUEUES = frozenset({"Queue", "LifoQueue", "PriorityQueue", "SimpleQueue", "deque"})
BOUNDS = frozenset({"maxsize", "maxlen"})


def name_of(node: ast.expr) -> str:
    """Return the last part of a dotted name."""
    match node:
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return name
        case ast.Subscript(value=value):
            return name_of(value)
        case _:
            return ""


def groups(tree: ast.Module) -> set[str]:
    """Return the names that stand for task groups: entered by `async with`, or parameters of that type."""
    entered = {
        name_of(item.optional_vars)
        for node in ast.walk(tree)
        if isinstance(node, ast.AsyncWith)
        for item in node.items
        if isinstance(item.context_expr, ast.Call) and name_of(item.context_expr.func) == "TaskGroup" and item.optional_vars is not None
    }
    return entered | {
        node.arg
        for node in ast.walk(tree)
        if isinstance(node, ast.arg) and node.annotation is not None and name_of(node.annotation) == "TaskGroup"
    }


def is_bounded(call: ast.Call, *, by_position: int) -> bool:
    """Return whether a call passes a maximum, by its name or its place."""
    return len(call.args) > by_position or any(keyword.arg in BOUNDS for keyword in call.keywords)


def faults(source: str) -> Iterator[str]:
    """Yield a line for each task without an owner and each queue without a bound."""
    tree, lines = ast.parse(source), source.splitlines()
    known_groups = groups(tree)

    def explained(node: ast.expr | ast.keyword, word: str) -> bool:
        return any(f"# {word}: " in line for line in lines[max(0, node.lineno - 2) : node.end_lineno])

    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = name_of(node.func)
            receiver = name_of(node.func.value) if isinstance(node.func, ast.Attribute) else ""
            if name in {"create_task", "ensure_future"} and receiver not in known_groups and not explained(node, "owned"):
                yield f"{node.lineno}: a task without an owner; use a TaskGroup, or say after `# owned:` who ends it"
            if name in QUEUES and not is_bounded(node, by_position=name == "deque") and not explained(node, "bounded"):
                yield f"{node.lineno}: a queue without a maximum; give one, or say after `# bounded:` what bounds it"
        elif (
            isinstance(node, ast.keyword)
            and node.arg == "default_factory"
            and name_of(node.value) in QUEUES
            and not explained(node, "bounded")
        ):
            yield f"{node.lineno}: a queue without a maximum; say after `# bounded:` what bounds it"


def test_every_task_has_an_owner_and_every_queue_a_bound() -> None:
    found = [f"{path.relative_to(ROOT)}:{fault}" for path in SOURCES for fault in faults(path.read_text(encoding="utf-8"))]
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize(
    "source",
    [
        "asyncio.create_task(work())",
        "task = asyncio.get_running_loop().create_task(work())",
        "asyncio.ensure_future(work())",
        "queue = asyncio.Queue()",
        "queue: asyncio.Queue[int] = asyncio.Queue[int]()",
        "queue = queue.SimpleQueue()",
        "waiting = deque()",
        "waiting = deque(items)",
        "waiting: deque[int] = field(default_factory=deque)",
    ],
)
def test_a_task_without_owner_and_a_queue_without_bound_are_found(source: str) -> None:
    assert len(list(faults(source))) == 1


@pytest.mark.parametrize(
    "source",
    [
        "async def run():\n    async with asyncio.TaskGroup() as group:\n        group.create_task(work())",
        "def begin(self, group: asyncio.TaskGroup):\n    group.create_task(work())",
        "# owned: close() cancels it\ntask = asyncio.create_task(work())",
        "queue = asyncio.Queue(100)",
        "queue = asyncio.Queue(maxsize=limit)",
        "waiting = deque((), 10)",
        "waiting = deque(maxlen=10)",
        "waiting = deque()  # bounded: one entry for each lane",
    ],
)
def test_owned_tasks_and_bounded_queues_are_not(source: str) -> None:
    assert not list(faults(source))
