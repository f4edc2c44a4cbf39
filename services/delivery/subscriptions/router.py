"""Route: which subscriptions an event is for.

event log → [route] → lane → attempt → ledger

Law 1: pure.
Law 2: an event with an audience reaches that consumer's subscriptions and no other's.
Law 3: the cost grows with the matches and the depth of the type's name, not with the subscriptions.
"""

from collections.abc import Iterable, Iterator

from services.delivery.model import Health
from services.delivery.request.settings import Subscription

_ALL = "*"
_BELOW = ".*"
_MATCHES_MAX = 1024
_Key = tuple[str, str, str]
"""Consumer (empty: any), type pattern, source (empty: any)."""


class Router:
    """An index of subscriptions by what they ask for."""

    def __init__(self, subscriptions: Iterable[Subscription] = ()) -> None:
        self.by_id: dict[str, Subscription] = {}
        """The subscriptions; to be read only."""
        self._index: dict[_Key, dict[str, Subscription]] = {}
        # What was asked for lately; few types and sources make up most of a stream.
        self._matches: dict[_Key, tuple[Subscription, ...]] = {}
        for subscription in subscriptions:
            self.put(subscription)

    def __len__(self) -> int:
        return len(self.by_id)

    def __iter__(self) -> Iterator[Subscription]:
        return iter(self.by_id.values())

    def get(self, subscription_id: str) -> Subscription | None:
        """Return a subscription by its id."""
        return self.by_id.get(subscription_id)

    def put(self, subscription: Subscription) -> None:
        """Take a subscription in, in place of its older self."""
        self.remove(subscription.id)
        self._matches.clear()
        self.by_id[subscription.id] = subscription
        if subscription.health is not Health.OFF:
            for key in _keys(subscription):
                self._index.setdefault(key, {})[subscription.id] = subscription

    def remove(self, subscription_id: str) -> Subscription | None:
        """Take a subscription out; returns it, None where there was none."""
        subscription = self.by_id.pop(subscription_id, None)
        if subscription is not None:
            self._matches.clear()
            for key in _keys(subscription):
                entry = self._index.get(key)
                if entry is not None:
                    entry.pop(subscription_id, None)
                    if not entry:
                        del self._index[key]
        return subscription

    def match(self, event_type: str, source: str, audience: str) -> tuple[Subscription, ...]:
        """Return the subscriptions that an event is for, by their ids, each once."""
        key = (audience, event_type, source)
        matches = self._matches.get(key)
        if matches is None:
            matches = tuple(self.search(event_type, source, audience))
            if len(self._matches) >= _MATCHES_MAX:
                self._matches.clear()
            self._matches[key] = matches
        return matches

    def search(self, event_type: str, source: str, audience: str) -> list[Subscription]:
        """Return what `match` does, found anew."""
        entries = []
        for pattern in patterns_of(event_type):
            for wanted_source in (source, ""):
                entry = self._index.get((audience, pattern, wanted_source))
                if entry:
                    entries.append(entry)
        if not entries:
            return []
        # The entries hold the subscriptions themselves: looking each up among all would cost the more, the more there are.
        found = entries[0] if len(entries) == 1 else {each: entry[each] for entry in entries for each in entry}
        return [found[each] for each in sorted(found)]


def patterns_of(event_type: str) -> Iterator[str]:
    """Yield every pattern that a type meets: its name, ``a.*`` for each segment above it, and ``*``."""
    yield event_type
    end = event_type.rfind(".")
    while end > 0:
        yield event_type[:end] + _BELOW
        end = event_type.rfind(".", 0, end)
    yield _ALL


def _keys(subscription: Subscription) -> Iterator[_Key]:
    # Each stands in the index twice: for events to all, and for those to its own consumer.
    for pattern in subscription.types or (_ALL,):
        for consumer_id in ("", subscription.consumer_id):
            yield (consumer_id, pattern, subscription.source)
