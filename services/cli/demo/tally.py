"""Tally: counts the emitted events, the deliveries that are due for them, and the deliveries that have arrived. Pure."""

from dataclasses import dataclass, field

from services.cli.demo.shop_events import WANTED, ShopEvent, is_due

Pair = tuple[str, str]


@dataclass(slots=True)
class _Arrivals:
    verified: int = 0
    unverified: int = 0

    @property
    def count(self) -> int:
        return self.verified + self.unverified


@dataclass(slots=True)
class Tally:
    """Counts by (subscriber, event id)."""

    emitted: int = 0
    _due: set[Pair] = field(default_factory=set)
    _arrived: dict[Pair, _Arrivals] = field(default_factory=dict)

    def emit(self, event: ShopEvent, event_id: str) -> None:
        """Note that an event is durable under its id ("evt_…")."""
        self.emitted += 1
        self._due.update((subscriber, event_id) for subscriber in WANTED if is_due(event, subscriber))

    def arrive(self, subscriber: str, event_id: str, *, verified: bool) -> int:
        """Note that a webhook has arrived; return how often this webhook has arrived by now."""
        arrivals = self._arrived.setdefault((subscriber, event_id), _Arrivals())
        if verified:
            arrivals.verified += 1
        else:
            arrivals.unverified += 1
        return arrivals.count

    @property
    def due(self) -> int:
        """How many deliveries are due."""
        return len(self._due)

    @property
    def delivered(self) -> int:
        """How many of the due deliveries have arrived, once or more."""
        return len(self._due & self._arrived.keys())

    @property
    def verified(self) -> int:
        """How many of the due deliveries have arrived, every time with a good signature."""
        return sum(1 for pair in self._due & self._arrived.keys() if not self._arrived[pair].unverified)

    @property
    def lost(self) -> int:
        """How many of the due deliveries have not arrived."""
        return self.due - self.delivered

    @property
    def repeated(self) -> int:
        """How many webhooks were repetitions."""
        return sum(arrivals.count - 1 for arrivals in self._arrived.values())

    @property
    def misdirected(self) -> int:
        """How many deliveries have arrived that were not due; correct only once all emitted events are noted."""
        return len(self._arrived.keys() - self._due)

    @property
    def is_perfect(self) -> bool:
        """Whether all due deliveries arrived and were verified, and no others arrived."""
        return self.due == self.delivered == self.verified and not self.misdirected

    def last_line(self) -> str:
        """Return the last line of the demo."""
        return f"demo: {self.emitted} emitted, {self.due} expected, {self.delivered} delivered, {self.verified} verified, {self.lost} lost"
