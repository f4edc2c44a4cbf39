"""Router: finds the subscriptions that an event is for.

log_follower → [router] → lane → dispatcher

Law 1: pure.
Law 2: an event with an audience reaches that consumer's subscriptions and no other's.
Law 3: a notice (`hooktide.…`) reaches only subscriptions that name its type or a family of such types (`event_types.patterns_of`).
Law 4: the cost grows with the number of matches and the depth of the type's name, not with the number of subscriptions.
"""

from collections.abc import Iterable, Iterator

from services.delivery.model import SubscriptionStatus
from services.delivery.request.request_settings import Subscription
from services.runtime.event_types import EVERY_TYPE, patterns_of

_MATCHES_MAX = 1024
_Key = tuple[str, str, str]
"""Consumer (empty: any), type pattern, source (empty: any)."""


class Router:
    """An index of subscriptions by consumer, type pattern and source."""

    def __init__(self, subscriptions: Iterable[Subscription] = ()) -> None:
        self.by_id: dict[str, Subscription] = {}
        """The subscriptions; callers only read it."""
        self._index: dict[_Key, dict[str, Subscription]] = {}
        # A cache of recent matches: few types and sources make up most of a stream.
        self._matches: dict[_Key, tuple[Subscription, ...]] = {}
        self.passed_by: set[str] = set()
        """The ids of subscriptions that match no event for now; callers only read it."""
        for subscription in subscriptions:
            self.put(subscription)

    def put(self, subscription: Subscription) -> None:
        """Add a subscription, or replace its older version."""
        self.remove(subscription.id)
        self._matches.clear()
        self.by_id[subscription.id] = subscription
        if subscription.id not in self.passed_by:
            self._index_keys(subscription)

    def _index_keys(self, subscription: Subscription) -> None:
        if subscription.status is not SubscriptionStatus.OFF:
            for key in _keys(subscription):
                self._index.setdefault(key, {})[subscription.id] = subscription

    def remove(self, subscription_id: str) -> Subscription | None:
        """Remove and return a subscription; return None if it does not exist."""
        subscription = self.by_id.pop(subscription_id, None)
        if subscription is not None:
            self._remove_keys(subscription)
        return subscription

    def _remove_keys(self, subscription: Subscription) -> None:
        self._matches.clear()
        for key in _keys(subscription):
            entry = self._index.get(key)
            if entry is not None:
                entry.pop(subscription.id, None)
                if not entry:
                    del self._index[key]

    def pass_by(self, subscription_id: str) -> None:
        """Match a subscription with no event until `return_to`, because its lane is behind: an event then costs nothing for it."""
        self.passed_by.add(subscription_id)
        if (subscription := self.by_id.get(subscription_id)) is not None:
            self._remove_keys(subscription)

    def return_to(self, subscription_id: str) -> None:
        """Match a subscription with events again."""
        if subscription_id in self.passed_by:
            self.passed_by.discard(subscription_id)
            if (subscription := self.by_id.get(subscription_id)) is not None:
                self._matches.clear()
                self._index_keys(subscription)

    def follow(self, former: "Router") -> None:
        """Pass by the same subscriptions as the router that this one replaces."""
        for subscription_id in former.passed_by:
            self.pass_by(subscription_id)

    def match(self, event_type: str, source: str, audience: str) -> tuple[Subscription, ...]:
        """Return the subscriptions that an event is for, each once, sorted by id."""
        key = (audience, event_type, source)
        matches = self._matches.get(key)
        if matches is None:
            matches = tuple(self.search(event_type, source, audience))
            if len(self._matches) >= _MATCHES_MAX:
                self._matches.clear()
            self._matches[key] = matches
        return matches

    def search(self, event_type: str, source: str, audience: str) -> list[Subscription]:
        """Return the same as `match`, without the cache."""
        entries = []
        for pattern in patterns_of(event_type):
            for wanted_source in (source, ""):
                entry = self._index.get((audience, pattern, wanted_source))
                if entry:
                    entries.append(entry)
        if not entries:
            return []
        # The entries hold the subscriptions themselves: a lookup of each in `by_id` would cost more, the more subscriptions there are.
        found = entries[0] if len(entries) == 1 else {each: entry[each] for entry in entries for each in entry}
        return [found[each] for each in sorted(found)]


def _keys(subscription: Subscription) -> Iterator[_Key]:
    # Each subscription is in the index twice: for events without an audience, and for events to its own consumer.
    for pattern in subscription.types or (EVERY_TYPE,):
        for consumer_id in ("", subscription.consumer_id):
            yield (consumer_id, pattern, subscription.source)
