"""Composition: the services that `services.__main__` passes to the command line, which itself imports no service."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from services.runtime.configuration.settings import SubscriptionSettings
from services.runtime.service_process import Serve


class FirstKeys(Protocol):
    """The keys of a fresh registry, in clear, and the id ("con_…") of the consumer that owns the consumer key."""

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
    """The function that runs each service in this process, by the service's name, and the function that makes a registry's first keys."""

    services: Mapping[str, Serve]
    bootstrap: Bootstrap
