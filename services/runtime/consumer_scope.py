"""Consumer scope: the consumers whose data a call may read and change.

gateway ─consumer_id─▶ server: [consumer_scope] → registry, event log, ledger

Law 1: pure. A scope is one consumer's own data, or the data of all consumers.
Law 2: a scope has no default. The contract never writes it as an empty text, so a server refuses a call without a scope, and every
function that reads or changes consumers' data takes the scope as a required argument.
"""

from dataclasses import dataclass
from typing import Final, TypeAlias

from services.runtime.ids import is_id

_EVERYONE = "*"
_FORMS = f'"con_…" for one consumer, or "{_EVERYONE}" for all consumers'


@dataclass(frozen=True, slots=True)
class OwnConsumer:
    """The data of one consumer, "con_…"; any other id raises ValueError."""

    consumer_id: str

    def __post_init__(self) -> None:
        if not is_id(self.consumer_id, "con"):
            message = f"{self.consumer_id!r} is not the id of a consumer"
            raise ValueError(message)

    @property
    def text(self) -> str:
        """The scope as the contract's `consumer_id` writes it."""
        return self.consumer_id

    def includes(self, consumer_id: str) -> bool:
        """Return whether a consumer's data is in the scope."""
        return consumer_id == self.consumer_id


@dataclass(frozen=True, slots=True)
class Everyone:
    """The data of all consumers, for an administrator and for the services themselves."""

    @property
    def text(self) -> str:
        """The scope as the contract's `consumer_id` writes it."""
        return _EVERYONE

    def includes(self, consumer_id: str) -> bool:
        """Return whether a consumer's data is in the scope: always."""
        del consumer_id
        return True


Scope: TypeAlias = OwnConsumer | Everyone
EVERYONE: Final = Everyone()


def scope_problem(text: str) -> str | None:
    """Return what is wrong with a call's `consumer_id`, as a text; None if it names a scope."""
    if not text:
        return f"is required: {_FORMS}"
    return None if text == _EVERYONE or is_id(text, "con") else f"must be {_FORMS}"


def parse_scope(text: str) -> Scope:
    """Return the scope that the text of a call's `consumer_id` names; raises ValueError, which says what to write, if it names no scope."""
    problem = scope_problem(text)
    if problem is not None:
        raise ValueError(problem)
    return EVERYONE if text == _EVERYONE else OwnConsumer(text)
