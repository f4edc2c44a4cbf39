"""Composition: what the command line is given by `services.__main__`, since it knows no service itself."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from services.runtime.configuration.settings import SubscriptionSettings
from services.runtime.lifecycle import Serve


class FirstKeys(Protocol):
    """The keys of a fresh registry, in clear, and the consumer ("con_…") whose the consumer's key is."""

    @property
    def consumer_id(self) -> str:
        """The first consumer."""
        ...

    @property
    def admin(self) -> str:
        """A key of the role admin."""
        ...

    @property
    def emitter(self) -> str:
        """A key of the role emitter."""
        ...

    @property
    def consumer(self) -> str:
        """A key of the role consumer."""
        ...


Bootstrap = Callable[[SubscriptionSettings], FirstKeys | None]


@dataclass(frozen=True, slots=True)
class Composition:
    """How each service is run in this process, by its name, and how a fresh registry gets its first keys."""

    services: Mapping[str, Serve]
    bootstrap: Bootstrap
